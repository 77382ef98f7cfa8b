import { Effect } from "effect"
import { Managed, Nursery } from "holdfast"

const database = Managed.make({
  name: "database",
  acquire: Effect.sync(() => ({ state: "open" })),
  release: (connection) =>
    Effect.sync(() => {
      connection.state = "CLOSED"
      console.log("  released")
    })
})

const program = Managed.use(database, (connection) => {
  const refused = Effect.delay(Effect.fail("refused"), "5 millis")
  const saved = Effect.sync(() => console.log(`  saved; the connection is ${connection.state}`))
    .pipe(Effect.delay("20 millis"), Effect.uninterruptible) // like a COMMIT under way
  return Effect.all([refused, saved, saved], { concurrency: 2 })
})

console.log("Effect alone:")
await Effect.runPromise(Effect.ignore(program))
await Effect.runPromise(Effect.sleep("50 millis"))

console.log("in a Nursery:")
await Effect.runPromise(Effect.ignore(Nursery.run(program)))

// Prints:
// Effect alone:
//   released
//   saved; the connection is CLOSED
// in a Nursery:
//   saved; the connection is open
//   released
