/**
 * Programs of other projects that some tests need. `.ci/run` installs them.
 *
 * A test that needs one asks for it here: `const chromium = tool("chromium")`, then `it.skipIf(chromium === undefined)`.
 * Without the program its tests are skipped, with a line on standard error. With `CI=true` the absence is an error, so that a
 * machine that lacks a program never reports success for tests that did not run.
 */
import { spawnSync } from "node:child_process"

/** The commands that each program may go by, and the arguments of a call that only shows that it works. */
const programs = {
  chromium: { commands: ["chromium", "chromium-browser", "google-chrome"], probe: ["--version"] },
  pgbouncer: { commands: ["pgbouncer", "/usr/sbin/pgbouncer"], probe: ["--version"] },
  python3: { commands: ["python3"], probe: ["-c", "import pty"] },
  "redis-server": { commands: ["redis-server"], probe: ["--version"] }
} as const

export type Tool = keyof typeof programs

/** The command of the program, or undefined if this machine has none and need not have one. */
export const tool = (
  name: Tool,
  env: Readonly<Record<string, string | undefined>> = process.env
): string | undefined => {
  const { commands, probe } = programs[name]
  const found = commands.find((command) => spawnSync(command, probe, { env }).status === 0)
  if (found !== undefined) return found
  const tried = `${commands.join(", ")} ${probe.join(" ")}`
  if (env["CI"] === "true") {
    throw new Error(`CI=true and ${name} does not run here (tried: ${tried}). Install it.`)
  }
  process.stderr.write(
    `${name} does not run here (tried: ${tried}): tests that need it are skipped.\n`
  )
  return undefined
}
