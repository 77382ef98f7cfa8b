/**
 * The order of the test files: what takes long begins first, or it runs alone at the end while a core idles. By name, because a
 * fresh checkout has no times of earlier runs, and those of single files on a busy machine mislead.
 */
import { BaseSequencer, type TestSpecification } from "vitest/node"

/** Ten seconds of work and more (2026-11-21), the longest first, except that what mostly waits runs beside what computes most. */
const long = [
  "cli/mirror.slow",
  "mutants.byTests.slow",
  "mutants.slow",
  "Postgres/Embedded",
  "Testing/ours",
  "cli/mirror.hostile.slow",
  "ExitStack.interruption.slow",
  "Main.table.slow",
  "Managed.interruption.slow",
  "Main",
  "Lock/Postgres",
  "Testing",
  "Lock/File",
  "Lock/Redis",
  "Pool.interruption",
  "Main.service.slow",
  "cli/view.slow",
  "Pool.laws",
  "Http/Server",
  "Files",
  "Testing/Vitest.slow",
  "Shared.laws",
  "docs",
  "Shutdown.interruption",
  "Nursery.interruption"
]
const place = ({ moduleId }: TestSpecification): number => {
  const at = long.findIndex((name) => moduleId.endsWith(`/test/${name}.test.ts`))
  return at === -1 ? long.length : at
}

export default class LongestFirst extends BaseSequencer {
  /** The others follow in vitest's own order: what failed or took long the last time, then by size. */
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    // It makes an array of its own.
    // oxlint-disable-next-line unicorn/no-array-sort
    return (await super.sort(files)).toSorted((one, two) => place(one) - place(two))
  }
}
