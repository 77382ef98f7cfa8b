// Explores subjects of bundled copies of the sources, one copy after another; test/mutants.slow.test.ts makes the bundles and asks.
// Of the subjects whose names begin as asked: the quick look of each, then every point of each, then other orders, until something is found.
// Or exactly the explorations asked for. No limit by the clock: a slow machine would then find what a quick one does not.
const millis = Infinity
const opLimit = 50_000
const modes = {
  quick: ({ interruptions }) => points(interruptions, "quick"),
  full: ({ interruptions }) => points(interruptions, "full"),
  orders: ({ interleavings }) =>
    interleavings?.({ delays: 1, random: 0, pct: { runs: 0 }, budget: { runs: 5_000, millis }, opLimit })
}
const points = (interruptions, mode) =>
  interruptions({ mode, fail: ["R0", "R1", "R2", "R3", "R4"], budget: { runs: 20_000, millis }, opLimit })

/** What effect keeps for the whole process, such as default services, is the code of one copy: the next makes its own. */
const forget = () => {
  const kept = globalThis["effect/GlobalValue"]
  for (const values of [kept, kept?.get("effect/Context/defaultValueCache")]) {
    for (const key of values?.keys() ?? []) if (String(key).startsWith("holdfast/")) values.delete(key)
  }
}

process.on("message", async ({ bundle, explorations, subjects }) => {
  forget()
  const { ours } = await import(bundle)
  const named = (start) => ours.filter(({ name }) => name.startsWith(start)).map(({ name }) => name)
  const asked = explorations
    ?? Object.keys(modes).flatMap((mode) => subjects.flatMap(named).map((subject) => ({ mode, subject })))
  const ran = []
  const found = []
  for (const { mode, subject } of asked) {
    const verdict = await modes[mode](ours.find(({ name }) => name === subject))
    if (verdict === undefined) continue
    ran.push({ mode, subject })
    if (verdict.passed) continue
    found.push({ mode, subject, verdict: `${verdict.status} ${verdict.notes.join(" ")}` })
    if (explorations === undefined) break
  }
  process.send({ ran, found })
})
