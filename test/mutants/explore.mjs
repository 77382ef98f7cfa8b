// Explores subjects of a bundled copy of the sources; test/mutants.slow.test.ts makes the bundle. Prints what was found.
// No limit by the clock: a slow machine would then find what a quick one does not.
const [bundle, ...names] = process.argv.slice(2)
const { ours } = await import(bundle)
const found = []
const chosen = ours.filter(({ name }) => names.length === 0 || names.some((start) => name.startsWith(start)))
const isFirst = process.env.FIRST === "1"
// One wanted: one point of each class is looked at before every point.
for (const mode of isFirst ? ["quick", "full"] : ["full"]) {
  for (const { interleavings, interruptions, name } of chosen) {
    const verdict = await interruptions({
      mode,
      fail: ["R0", "R1", "R2", "R3", "R4"],
      budget: { runs: 20_000, millis: Infinity },
      opLimit: 50_000
    })
    if (!verdict.passed) found.push(`${name}: ${verdict.status} ${verdict.notes.join(" ")}`)
    if (mode === "full" && verdict.passed && interleavings !== undefined) {
      const orders = await interleavings({
        delays: 1,
        random: 0,
        pct: { runs: 0 },
        budget: { runs: 5_000, millis: Infinity },
        opLimit: 50_000
      })
      if (!orders.passed) found.push(`${name}, in another order: ${orders.status}`)
    }
    if (found.length > 0 && isFirst) break
  }
  if (found.length > 0 && isFirst) break
}
process.stdout.write(JSON.stringify({ explored: chosen.map(({ name }) => name), found }))
process.exit(0)
