import { Effect } from "effect"
import { Managed, Parallel } from "holdfast"

const database = Managed.make({
  name: "database",
  acquire: Effect.sync(() => ({ state: "open" })),
  release: (connection) =>
    Effect.sync(() => {
      connection.state = "CLOSED"
      console.log("  released")
    })
})

const save = (all = Effect.all) =>
  Managed.use(database, (connection) => {
    const refused = Effect.delay(Effect.fail("refused"), "5 millis")
    const saved = Effect.sync(() => console.log(`  saved; the connection is ${connection.state}`))
      .pipe(Effect.delay("20 millis"), Effect.uninterruptible) // like a COMMIT under way
    return all([refused, saved, saved], { concurrency: 2 })
  })

console.log("Effect.all:")
await Effect.runPromise(Effect.ignore(save()))
await Effect.runPromise(Effect.sleep("50 millis"))

console.log("Parallel.all:")
await Effect.runPromise(Effect.ignore(save(Parallel.all)))

// Prints:
// Effect.all:
//   released
//   saved; the connection is CLOSED
// Parallel.all:
//   saved; the connection is open
//   released
