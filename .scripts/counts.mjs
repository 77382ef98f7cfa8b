/** Prints `N passed, N failed` from the file that vitest's json reporter wrote. Without such a file nothing passed. */
import * as fs from "node:fs"

const counts = (file) => {
  try {
    const { numFailedTests, numPassedTests, numPendingTests, numTodoTests, testResults } = JSON.parse(
      fs.readFileSync(file, "utf8")
    )
    // A file that could not be loaded counts as one failure.
    const unloadable = testResults.filter((one) =>
      one.status === "failed" && one.assertionResults.every((test) => test.status !== "failed")
    )
    return {
      passed: numPassedTests,
      failed: numFailedTests + unloadable.length,
      skipped: numPendingTests + numTodoTests
    }
  } catch {
    return { passed: 0, failed: 1, skipped: 0 }
  }
}

const { failed, passed, skipped } = counts(process.argv[2])
console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`)
