/** One change of the sources that tests must find. */
export interface Mutant {
  /** The promise that the change breaks, or the way it breaks it. */
  readonly what: string
  /** The file that is changed, below `src`. */
  readonly file: string
  /** Occurs in the file exactly once. */
  readonly from: string
  readonly to: string
  /** The file of the tests, below `test`. */
  readonly tests: string
  /** A part of the title of each test that runs; one of them must fail. Choose one that is quick. */
  readonly title: string
}

/** Makes the mutants of one file, which the tests of one file find. */
export const of =
  (file: string, tests: string) =>
  (what: string, from: string, to: string, title: string): Mutant => ({
    what,
    file,
    from,
    to,
    tests,
    title
  })
