/**
 * Builds `dist` once before all tests, if it is stale: child-process tests run the built command, as users do. Type errors
 * are shown and do not stop the tests (`npm run check` is where they fail): what tsc emitted is what is tested.
 */
import { spawnSync } from "node:child_process"

export default (): void => {
  spawnSync(process.execPath, [".scripts/build.mjs", "--if-stale"], { stdio: "inherit" })
}
