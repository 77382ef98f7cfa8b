/**
 * Testing: proves that a program releases everything at every interruption point, or finds a point at which it does not.
 *
 * DESIGN. `Explore` runs a program under a scheduler of its own and tries every place at which production could interrupt it;
 * `Probe` counts what never reaches a scope, and injects faults. Both work on unmodified Effect 3 programs.
 * `holdfast/Testing/Vitest` makes tests of them. `Testing/README.md` says how to read a verdict: the grades and the laws.
 *
 * @since 0.1.0
 */
export * as Explore from "./Testing/Explore.ts"
export * as Probe from "./Testing/Probe.ts"
