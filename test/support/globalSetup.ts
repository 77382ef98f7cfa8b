/**
 * Builds `dist` once before all tests: child-process tests run the built command, as users do.
 */
import { execFileSync } from "node:child_process"

export default (): void => {
  execFileSync("npx", ["--no-install", "tsc", "-p", "src"], { stdio: "inherit" })
}
