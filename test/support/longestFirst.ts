/**
 * The order of the test files: what takes long begins first, or it runs alone at the end while a core idles. By name, because a
 * fresh checkout has no times of earlier runs, and those of single files on a busy machine mislead.
 */
import { BaseSequencer, type TestSpecification } from "vitest/node"

/** Ten seconds of work and more (2026-11-20), the longest first, except that what mostly waits runs beside what computes most. */
const long = [
  "mutants.slow",
  "mutants.byTests.slow",
  "Postgres/Embedded",
  "Lock/Postgres",
  "cli/mirror.slow",
  "cli/mirror.hostile.slow",
  "Main",
  "Main.table.slow",
  "Main.service.slow",
  "Testing/ours",
  "ExitStack.interruption",
  "Pool.interruption",
  "Managed.interruption.slow",
  "Nursery.interruption",
  "Nursery.laws",
  "cli/view.slow",
  "Pool.laws",
  "Lock/File",
  "Testing",
  "Files",
  "Shared.laws"
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
