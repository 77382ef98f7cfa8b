/** Mutants of Batch, found by test/Batch.test.ts; test/mutants.byTests.slow.test.ts says how to add one. */
import { type Mutant } from "./mutant.ts"

export const mutants: ReadonlyArray<Mutant> = []
