/**
 * `npm run lock`: completes package-lock.json after an install, so that `npm ci` works wherever it runs.
 *
 * An install writes down only the optional packages it could load: with a registry that carries one platform's binaries,
 * or with a node_modules in place, those of the other platforms are left out, and `npm ci` then refuses the lock file as
 * "not in sync". Parents name these packages with their exact version, and the name says the platform; that is all an entry needs.
 * Removes addresses, too: the lock file must work with whatever registry the reader uses.
 */
import * as fs from "node:fs"
import * as path from "node:path"
import { root } from "./build.mjs"

const file = path.join(root, "package-lock.json")
const lock = JSON.parse(fs.readFileSync(file, "utf8"))

/** `@rollup/rollup-linux-arm64-musl` is for linux, arm64, musl. */
const platformOf = (name) => {
  const found =
    /(aix|android|darwin|freebsd|linux|netbsd|openbsd|openharmony|sunos|win32)-([a-z0-9]+)(?:-(\w+))?$/
      .exec(name)
  if (found === null) throw new Error(`The name ${name} does not say its platform; add it by hand.`)
  const [, os, cpu, abi = ""] = found
  const libc = os !== "linux" || abi === "" ? undefined : abi.startsWith("musl") ? "musl" : "glibc"
  return { cpu: [cpu], ...(libc === undefined ? {} : { libc: [libc] }), os: [os] }
}

let added = 0
for (const [at, parent] of Object.entries(lock.packages)) {
  delete parent.resolved
  for (const [name, version] of Object.entries(parent.optionalDependencies ?? {})) {
    if (`node_modules/${name}` in lock.packages || `${at}/node_modules/${name}` in lock.packages) {
      continue
    }
    if (!/^\d+\.\d+\.\d+[\w.-]*$/.test(version)) {
      throw new Error(`${at} wants ${name}@${version}, which is no exact version; add it by hand.`)
    }
    const { cpu, libc, os } = platformOf(name)
    const dev = parent.dev === true ? { dev: true } : {}
    // The order of the fields is npm's.
    lock.packages[`node_modules/${name}`] = { version, cpu, ...dev, libc, optional: true, os }
    added++
  }
}

const sorted = Object.entries(lock.packages).toSorted(([a], [b]) => a.localeCompare(b, "en"))
lock.packages = Object.fromEntries(sorted)
fs.writeFileSync(file, `${JSON.stringify(lock, undefined, 2)}\n`)
console.log(added === 0 ? "The lock file is complete." : `Added ${added} packages of other platforms.`)
