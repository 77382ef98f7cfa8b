/**
 * `npm run bench -- files-faults [rounds]`: every scenario of test/support/fileScenarios.ts on ours and on the platform's `FileSystem`,
 * in one run, and each operation of ours interrupted at `rounds` steps (default 200). `npm run bench -- files-kills [rounds]`: so many
 * processes killed in the midst of a write (default 200). Neither writes a file that stays.
 */
import { Effect } from "effect"
import { Managed } from "holdfast"
import * as Files from "holdfast/Files"
import { spawn } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { type Facts, operations, scenarios, swept } from "../test/support/fileScenarios.ts"

const fresh = <A>(use: (dir: string) => Effect.Effect<A, unknown>): Promise<A> =>
  Effect.runPromise(Managed.use(Files.tempDirectory(), use))

const words = (facts: Facts): string =>
  Object.entries(facts).map(([name, count]) => `${name} ${count}`).join(", ")

const isZero = (facts: Facts): boolean => Object.values(facts).every((count) => count === 0)

const roundsOf = (argument: string): number =>
  Number(process.argv[process.argv.indexOf(argument) + 1] ?? 200) || 200

export const faults = async (): Promise<never> => {
  const rounds = roundsOf("files-faults")
  let isMet = true
  for (const { name, ours, raw } of scenarios) {
    const facts = await fresh((dir) => Effect.scoped(ours(dir, rounds)))
    const theirs = raw && await fresh((dir) => Effect.scoped(raw(dir, rounds)))
    console.log(`${name}: ours ${words(facts)}; platform ${theirs ? words(theirs) : "—"}`)
    isMet &&= isZero(facts)
  }
  for (const [name, operation] of Object.entries(operations)) {
    const facts = await fresh((dir) => swept(operation, dir, rounds))
    console.log(`${name}, ${rounds} interruptions: ${words(facts)}`)
    isMet &&= isZero(facts)
  }
  process.exit(isMet ? 0 : 1)
}

const script = `
  import * as Effect from "effect/Effect"
  import * as Files from "holdfast/Files"
  const write = (letter) => Files.writeAtomic(process.argv[1], letter.repeat(3_000_000), { durability: "none" })
  await Effect.runPromise(write("a"))
  setTimeout(() => process.kill(process.pid, "SIGKILL"), Math.random() * 30)
  await Effect.runPromise(Effect.forever(Effect.zipRight(write("b"), write("a"))))`

const killed = (at: string) =>
  new Promise((done) =>
    spawn(process.execPath, ["--input-type=module", "-e", script, at], { stdio: "inherit" })
      .once("close", (_, signal) => done(signal))
  )

export const kills = async (): Promise<never> => {
  const rounds = roundsOf("files-kills")
  const facts = await fresh((dir) =>
    Effect.promise(async () => {
      const at = path.join(dir, "file")
      const facts = { "not killed": 0, mixed: 0, "drafts at the end": 0 }
      let most = 0
      for (let round = 0; round < rounds; round++) {
        if (await killed(at) !== "SIGKILL") facts["not killed"]++
        const content = fs.readFileSync(at, "latin1")
        if (content !== content[0]!.repeat(3_000_000)) facts.mixed++
        most = Math.max(most, fs.readdirSync(dir).length - 1)
      }
      await Effect.runPromise(Files.writeAtomic(at, "after"))
      facts["drafts at the end"] = fs.readdirSync(dir).length - 1
      console.log(`${rounds} kills: at most ${most} drafts at a time, ${words(facts)}`)
      return facts
    })
  )
  process.exit(isZero(facts) ? 0 : 1)
}
