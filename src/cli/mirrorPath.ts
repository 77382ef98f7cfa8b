/**
 * mirrorPath: the path of each URL below the target folder, `<host>/<path>`.
 *
 * DESIGN. Two steps. `plain` names one URL by itself, readably and injectively: `http://example.com/docs/a.html` is
 * `example.com/docs/a.html`. `plan` sees the whole set and gives a hashed name (`a~~0123456789abcdef.html`) to those whose
 * plain names clash on a real file system: equal but for case or Unicode form, or a file where another needs a folder.
 *
 * A plain name is made of parts that are spelled as in the URL, but for these, so that it can be read back:
 * - `~xx` is the ASCII character of that code: the `?` of a query (`~3f`), `~` itself, and what some file system forbids,
 *   such as `:` anywhere, or a dot at the end; `index~.html` is the empty name after the last slash; `~` an empty folder.
 * - a letter or digit whose percent-encoding is the standard one stands as itself: `caf%C3%A9` is `café`.
 * - the host's folder ends in `+https` and `+8080` unless scheme and port are the plain ones; IPv6 is `ip6+2001-db8--1`.
 *
 * INVARIANTS
 * - MirrorPath-1 A path is relative, and stays inside the folder on POSIX and Windows alike.
 * - MirrorPath-2 Distinct URLs have distinct plain names, and no plain name holds `~~`, which every hashed one does.
 * - MirrorPath-3 In a plan no two paths are equal, and none is a folder of another, but for case and Unicode form.
 * - MirrorPath-4 A plan depends on the set of URLs, not on their order; a URL in `taken` keeps its path.
 * - MirrorPath-5 No part begins with `.holdfast`, ends in `.part`, a dot or a space, is a Windows device, or is longer than
 *   200 bytes (room for a temporary suffix); no path is longer than 1000 bytes.
 *
 * COST O(n · length), one sha256 for each URL that needs a hashed name.
 * NOT DONE Windows' 260-character paths.
 * SOURCES wget's `--restrict-file-names`; Windows "Naming Files, Paths, and Namespaces"; git's checks of `.git` on HFS+.
 */
import { createHash } from "node:crypto"

const maxPartBytes = 200
const maxPathBytes = 1000
const hashLength = 16

const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex")
const bytesOf = (text: string): number => Buffer.byteLength(text)

/** Equal for two names that some file system takes for one. Two names that it joins needlessly only get hashed names. */
const folded = (path: string): string =>
  path.normalize("NFKC").toUpperCase().toLowerCase().normalize("NFKC")

const escaped = (character: string): string =>
  `~${character.charCodeAt(0).toString(16).padStart(2, "0")}`

const encodedCharacter =
  /%[CD][0-9A-F]%[89AB][0-9A-F]|%E[0-9A-F](?:%[89AB][0-9A-F]){2}|%F[0-4](?:%[89AB][0-9A-F]){3}/g

const decoded = (encoded: string): string => {
  try {
    const character = decodeURIComponent(encoded)
    // An invisible letter (a filler, a variation selector) would make two names look the same, and HFS+ drops some.
    return /^[\p{L}\p{M}\p{Nd}]$/u.test(character)
        && !/\p{Default_Ignorable_Code_Point}/u.test(character)
      ? character
      : encoded
  } catch {
    return encoded
  }
}

const device = /^(?:con|prn|aux|nul|com[0-9]|lpt[0-9]|conin\$|conout\$)(?:\.|$)/

/** One part of a path. It is never empty and never a name that is special to a file system, to Windows, or to us. */
const part = (text: string): string => {
  if (text === "") return "~"
  let name = text
    .replace(/[^A-Za-z0-9\-_.!$&'()+,;=@[\]^%]/g, escaped)
    .replace(encodedCharacter, decoded)
    .replace(/\.$/, "~2e")
  if (folded(name).endsWith(".part")) name = name.replace(/\.(?=[^.]*$)/, "~2e")
  return folded(name).startsWith(".holdfast") || device.test(name.toLowerCase())
    ? `${escaped(name)}${name.slice(1)}`
    : name
}

const hostFolder = (url: URL): string => {
  const name = url.hostname.startsWith("[")
    ? `ip6+${url.hostname.slice(1, -1).replaceAll(":", "-")}`
    : part(url.hostname).replaceAll("+", "~2b")
  const whole = `${name}${url.protocol === "https:" ? "+https" : ""}${url.port && `+${url.port}`}`
  return bytesOf(whole) <= maxPartBytes
    ? whole
    : marked(whole, "", sha256(whole).slice(0, hashLength))
}

/** `last` is the text after the last slash, as written; `query` has its `?`, or is empty. */
const partsOf = (href: string) => {
  const url = new URL(href)
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw new TypeError("MirrorPath-1: only http and https URLs have a place in a mirror")
  }
  const segments = url.pathname.split("/").slice(1)
  const last = segments.pop() ?? ""
  // `search` is empty for "a" and for "a?", which are two URLs.
  url.hash = ""
  const query = url.search === "" && url.href.endsWith("?") ? "?" : url.search
  return { host: hostFolder(url), folders: segments.map(part), last, query }
}

/** `name~~hash.ext`, with as much of the name as fits. */
const marked = (name: string, extension: string, hash: string): string => {
  const room = maxPartBytes - 2 - hash.length - extension.length
  let start = ""
  for (const character of name) {
    if (bytesOf(start + character) > room) break
    start += character
  }
  return `${start}~~${hash}${extension}`
}

const plainOf = ({ folders, host, last, query }: ReturnType<typeof partsOf>): string => {
  const index = `index~.html${query === "" ? "" : part(query)}`
  return [host, ...folders, last === "" ? index : part(last + query)].join("/")
}

const hashedName = (url: string, last: string): string => {
  const name = last === "" ? "index.html" : part(last)
  const extension = /(?<=.)\.[A-Za-z0-9]{1,10}$/.exec(name)?.[0] ?? ""
  const stem = name.slice(0, name.length - extension.length)
  return marked(stem, extension, sha256(url).slice(0, hashLength))
}

const joined = (host: string, folders: ReadonlyArray<string>, name: string): string => {
  let path = host
  for (const folder of folders) {
    if (bytesOf(folder) > maxPartBytes) break
    if (bytesOf(path) + bytesOf(folder) + bytesOf(name) + 2 > maxPathBytes) break
    path += `/${folder}`
  }
  return `${path}/${name}`
}

const fits = (path: string): boolean =>
  bytesOf(path) <= maxPathBytes && path.split("/").every((part) => bytesOf(part) <= maxPartBytes)

/** `first` is the plain name, if that is not too long; `hashed` are the others, the best one first. */
const namesOf = (url: string) => {
  const parts = partsOf(url)
  const path = plainOf(parts)
  const name = hashedName(url, parts.last)
  const inPlace = joined(parts.host, parts.folders, name)
  // The later names serve when a folder above is already the file of another URL.
  const hashed = [inPlace, `${parts.host}/${name}`, `~~${sha256(url)}`]
  return { first: fits(path) ? path : inPlace, hashed }
}

/**
 * The plain name of an http(s) URL: readable, and another for each URL (MirrorPath-2). It may be too long, and it may
 * clash with another's on a real file system: `plan` decides whether it is used.
 */
export const plain = (url: string): string => plainOf(partsOf(url))

/**
 * Whether a mirror may write to a path from the table: it is relative, inside the folder on any system, and not in the
 * folder's own `.holdfast`.
 */
export const isInside = (path: string): boolean =>
  // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
  !/[\u0000-\u001F\\:]/.test(path)
  && path.split("/").every((part) =>
    part !== "" && part !== "." && part !== ".." && !folded(part).startsWith(".holdfast")
  )

/** The folders above a file, outermost first. */
const above = (path: string): ReadonlyArray<string> => {
  const parts = path.split("/")
  return parts.slice(1).map((_, index) => parts.slice(0, index + 1).join("/"))
}

const makeTree = () => {
  // Both hold folded paths.
  const files = new Set<string>()
  const folders = new Set<string>()
  return {
    isFree: (path: string): boolean => {
      const key = folded(path)
      return !files.has(key) && !folders.has(key) && !above(key).some((folder) => files.has(folder))
    },
    add: (path: string): void => {
      const key = folded(path)
      files.add(key)
      for (const folder of above(key)) folders.add(folder)
    }
  }
}

/** The URLs that keep their first name: no other newcomer wants that name, or a folder of that name. */
const undisputed = (first: ReadonlyMap<string, string>): ReadonlySet<string> => {
  const users = new Map<string, number>()
  const folders = new Set<string>()
  for (const path of first.values()) {
    const key = folded(path)
    users.set(key, (users.get(key) ?? 0) + 1)
    for (const folder of above(key)) folders.add(folder)
  }
  const isUndisputed = (key: string) => users.get(key) === 1 && !folders.has(key)
  return new Set(Array.from(first.keys()).filter((url) => isUndisputed(folded(first.get(url)!))))
}

/**
 * Gives each URL its path, knowing all of them. Pure.
 *
 * **Details** — A URL in `taken` keeps the path it has there. New URLs that clash with each other all get hashed names, except
 *   that a folder takes precedence over a file. A path in `taken` that leaves the folder
 *   or clashes with another one there is not trusted: its URL is named anew.
 * **Errors** — throws on what is not an absolute http(s) URL; `urlList` yields nothing else.
 * **Cost** — linear, plus a sort of the URLs.
 */
export const plan = (
  urls: Iterable<string>,
  taken: ReadonlyMap<string, string> = new Map()
): ReadonlyMap<string, string> => {
  const tree = makeTree()
  const places = new Map<string, string>()
  const place = (url: string, path: string): void => {
    tree.add(path)
    places.set(url, path)
  }
  // Names are given in sorted order, so that the order of the list does not matter (MirrorPath-4).
  const sorted = (of: Iterable<string>): ReadonlyArray<string> => Array.from(new Set(of)).toSorted()
  for (const url of sorted(taken.keys())) {
    const path = taken.get(url)!
    if (isInside(path) && tree.isFree(path)) place(url, path)
  }
  const wanted = Array.from(urls)
  const newcomers = sorted(wanted).filter((url) => !places.has(url))
  const names = new Map(newcomers.map((url) => [url, namesOf(url)] as const))
  const keeping = undisputed(new Map(Array.from(names, ([url, { first }]) => [url, first])))
  const keepers = newcomers.filter((url) => keeping.has(url) && tree.isFree(names.get(url)!.first))
  for (const url of keepers) place(url, names.get(url)!.first)
  for (const [url, { hashed }] of names) {
    if (places.has(url)) continue
    const path = hashed.find((path) => tree.isFree(path))
    if (path === undefined) {
      throw new Error(`MirrorPath-3: every name of ${url} is taken by another URL`)
    }
    place(url, path)
  }
  return new Map(wanted.map((url) => [url, places.get(url)!]))
}
