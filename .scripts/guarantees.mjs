/**
 * `npm run guarantees` writes test/GUARANTEES.md: the invariants of all file heads, each with the tests that carry its id.
 * With `--check` it writes nothing, and fails if the file is not what it would write.
 */
import * as fs from "node:fs"
import * as path from "node:path"
import { root } from "./build.mjs"

const target = "test/GUARANTEES.md"
const read = (file) => fs.readFileSync(path.join(root, file), "utf8")
const filesUnder = (folder) =>
  fs.readdirSync(path.join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .map((file) => path.posix.join(folder, file))
    .sort()

const id = String.raw`[A-Z][A-Za-z]*-\d+`

/** ` * - Pool-3 (L1, L2) The sentence,` and the lines after it that are indented. The laws in brackets are left out. */
const statedIn = (file) => {
  const head = /^(?:#!.*\n)?\/\*\*[\s\S]*?\*\//.exec(read(file))?.[0] ?? ""
  const item = new RegExp(String.raw`^ \* - (${id}) (?:\([A-Z]\d+(?:, [A-Z]\d+)*\) )?(.*(?:\n \*   .*)*)`, "gm")
  return Array.from(head.matchAll(item), ([, name, text]) => ({
    id: name,
    file,
    sentence: text.replaceAll(/\n \* +/g, " ")
  }))
}

/** A title that begins with one id or several: `"Pool-3, Pool-4: …"`. */
const title = new RegExp(String.raw`["'\x60]${id}(?:(?:,? | and |/)${id})*:`, "g")
const testsOf = new Map()
for (const file of filesUnder("test")) {
  // These name the tests that find a mutant; they are none.
  if (file.startsWith("test/mutants/")) continue
  for (const [found] of read(file).matchAll(title)) {
    for (const name of found.match(new RegExp(id, "g"))) {
      testsOf.set(name, (testsOf.get(name) ?? new Set()).add(file))
    }
  }
}

const prefixOf = (name) => name.slice(0, name.lastIndexOf("-"))
const numberOf = (name) => Number(name.slice(name.lastIndexOf("-") + 1))
const link = (file) => `[${file.replace(/^test\//, "")}](${path.posix.relative("test", file)})`

const line = ({ id: name, sentence }) =>
  `- **${name}** ${sentence}\n  Tests: ${Array.from(testsOf.get(name) ?? ["none"], link).join(", ")}.`

const group = ([prefix, invariants]) => {
  const files = [...new Set(invariants.map(({ file }) => file))]
  const lines = invariants.toSorted((a, b) => numberOf(a.id) - numberOf(b.id)).map(line)
  return `### ${prefix}\n\nStated in ${files.map(link).join(", ")}.\n\n${lines.join("\n")}\n`
}

const part = (heading, invariants) => {
  const groups = new Map(invariants.map(({ id: name }) => [prefixOf(name), []]))
  for (const one of invariants) groups.get(prefixOf(one.id)).push(one)
  return `## ${heading}\n\n${Array.from(groups, group).join("\n")}`
}

const all = filesUnder("src").flatMap(statedIn)
const isInside = ({ file }) => file.startsWith("src/internal/")
const isCommand = ({ file }) => file.startsWith("src/cli/")
const text = [
  "# Guarantees",
  "",
  "Written by `npm run guarantees` from the heads of the files in `src`. Do not edit it.",
  "",
  "Each sentence has tests that carry its id: `npm test -- -t Pool-3` runs those of Pool-3.",
  "",
  part("What programs may rely on", all.filter((one) => !isInside(one) && !isCommand(one))),
  part("What users of the command may rely on", all.filter(isCommand)),
  part("What the modules rely on", all.filter(isInside))
].join("\n")

const file = path.join(root, target)
const before = fs.existsSync(file) ? fs.readFileSync(file, "utf8") : ""
if (!process.argv.includes("--check")) {
  fs.writeFileSync(file, text)
  console.log(`${target}: ${all.length} guarantees${before === text ? ", as before" : ""}.`)
} else if (before !== text) {
  const wanted = text.split("\n")
  const at = wanted.findIndex((each, index) => before.split("\n")[index] !== each)
  console.error(`${target} is not what the file heads say: run \`npm run guarantees\`.`)
  console.error(`Line ${at + 1} should be: ${wanted[at]}`)
  process.exitCode = 1
}
