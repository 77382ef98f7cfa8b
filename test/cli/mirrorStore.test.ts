import { NodeFileSystem } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import * as MirrorStore from "../../src/cli/mirrorStore.ts"
import { embeddedServer } from "../support/postgres.ts"
import { poolsOf } from "../support/postgresPool.ts"

const server = embeddedServer({ settings: { deadlock_timeout: "100ms" } })
const { ask, pool } = poolsOf(server, "mirror")

describe("mirrorStore", () => {
  it.scopedLive("MirrorStore-3: two mirrors with the same URLs in opposite order do not deadlock", () =>
    Effect.gen(function*() {
      const open = Effect.flatMap(
        pool(),
        ({ sql }) =>
          MirrorStore.open.pipe(
            Effect.provideService(SqlClient.SqlClient, sql),
            Effect.provide(NodeFileSystem.layer)
          )
      )
      const [first, second] = yield* Effect.all([open, open])
      const plan = Array.from(
        { length: 40 },
        (_, i) => [`http://host/${i + 10}`, `path/${i + 10}`] as const
      )
      yield* first.reserve(new Map(plan))
      yield* ask(`create function slow() returns trigger language plpgsql as
        $$ begin perform pg_sleep(0.005); return new; end $$`)
      yield* ask(
        "create trigger slow before update on mirror_file for each row execute function slow()"
      )
      yield* Effect.all(
        [first.reserve(new Map(plan)), second.reserve(new Map(plan.toReversed()))],
        { concurrency: 2 }
      )
      expect(yield* ask("select count(*)::int as n from mirror_file")).toEqual([{ n: 40 }])
    }))
})
