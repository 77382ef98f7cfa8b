import { defineConfig } from "vitest/config"
import LongestFirst from "./support/longestFirst.ts"

const conditions = ["@holdfast/source"]
// Where `.ci/run` wants the counts of the run.
const counts = process.env["HOLDFAST_COUNTS"]

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: {
    // `X.slow.test.ts` (whole commands, child processes killed and resumed) runs in `npm test`, not in `npm run check`.
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/support/globalSetup.ts"],
    setupFiles: ["test/support/turn.ts"],
    sequence: { sequencer: LongestFirst },
    // On two cores: the tests of servers and child processes wait for a quarter of their time.
    maxWorkers: 3,
    // Within a file that runs child processes side by side, each row of two.
    maxConcurrency: 3,
    minWorkers: 1,
    // A busy machine is slow; only a hang takes as long.
    testTimeout: 90_000,
    hookTimeout: 60_000,
    reporters: counts === undefined ? ["default"] : ["default", ["json", { outputFile: counts }]]
  }
})
