import { Effect } from "effect"
import * as Lock from "holdfast/Lock"
import * as LockFile from "holdfast/Lock/File"
import * as Main from "holdfast/Main"

const job = Effect.gen(function*() {
  console.log(`process ${process.pid} has the lock`)
  yield* Effect.sleep("300 millis")
  console.log(`process ${process.pid} is done`)
})
const alone = Lock.withLock("nightly", { acquireTimeout: "1 minute" })(job)
Main.run(Effect.provide(alone, LockFile.layer({ namespace: "my-app" })))
