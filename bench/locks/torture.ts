/**
 * `npm run bench -- lock-torture redis 100000`: test/support/lockTorture.ts at length; the backend (`redis`, `postgres`, `abstract`,
 * `file`), the number of grants, and the seed, which is 1 unless the environment has a SEED. At most ten minutes.
 */
import { type Torture, torture } from "../../test/support/lockTorture.ts"
import { withServers } from "./servers.ts"
import { now } from "./worker.ts"

export const run = (): Promise<never> =>
  withServers(async ({ postgres, redis }) => {
    const [backend = "redis", grants = "100000"] = process.argv.slice(
      process.argv.indexOf("lock-torture") + 1
    )
    const began = now()
    const seen = await torture({
      backend: backend as Torture["backend"],
      grants: Number(grants),
      seed: Number(process.env["SEED"] ?? 1),
      millis: 600_000,
      redis,
      postgres: backend === "redis" || backend === "postgres" ? postgres : undefined
    })
    console.log(`${backend}, ${((now() - began) / 1000).toFixed(0)} s: ${JSON.stringify(seen)}`)
    // On a busy machine a body may be paused beyond its lease, and then only its fence stops it.
    const overlaps = backend === "redis" ? 0 : seen.overlaps
    return overlaps + seen.fencesThatFell + seen.staleCommits + seen.unhandled === 0
  })
