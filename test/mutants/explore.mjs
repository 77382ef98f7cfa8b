// Explores subjects of a bundled copy of the sources; test/mutants.slow.test.ts makes the bundle. Prints what was found.
const [bundle, ...names] = process.argv.slice(2)
const { ours } = await import(bundle)
const found = []
const chosen = ours.filter(({ name }) => names.length === 0 || names.some((start) => name.startsWith(start)))
for (const { interleavings, interruptions, name } of chosen) {
  const verdict = await interruptions({
    fail: ["R0", "R1", "R2", "R3", "R4"],
    budget: { runs: 20_000, millis: 8_000 },
    opLimit: 50_000
  })
  if (!verdict.passed) found.push(`${name}: ${verdict.status} ${verdict.notes.join(" ")}`)
  if (verdict.passed && interleavings !== undefined) {
    const orders = await interleavings({
      delays: 1,
      random: 0,
      pct: { runs: 0 },
      budget: { runs: 5_000, millis: 4_000 },
      opLimit: 50_000
    })
    if (!orders.passed) found.push(`${name}, in another order: ${orders.status}`)
  }
  if (found.length > 0 && process.env.FIRST === "1") break
}
process.stdout.write(JSON.stringify({ explored: chosen.map(({ name }) => name), found }))
process.exit(0)
