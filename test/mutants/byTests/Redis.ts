/**
 * Mutants of Lock/Redis, found by test/Lock/Redis.test.ts on a real server; test/mutants.byTests.slow.test.ts says how to add one.
 */
import { tool } from "../../support/tools.ts"
import { type Mutant, of } from "./mutant.ts"

const tests = "Lock/Redis.test.ts"
const redis = of("Lock/Redis.ts", tests)
const scripts = of("Lock/Redis/scripts.ts", tests)
const renewal = of("Lock/renewal.ts", tests)

const all: ReadonlyArray<Mutant> = [
  scripts(
    "no fence is drawn",
    "text(math.max(last + 1, now))",
    "text(last)",
    "redis: Lock-1: one at a time"
  ),
  scripts(
    "the limit is ignored",
    "if isNext and used + permitsOf(owner) <= limit then",
    "if isNext then",
    "redis: Lock-1: one at a time"
  ),
  scripts(
    "a grant whose answer was lost keeps out its own owner",
    "if fence then\n  write(owner, fence, math.max(tonumber(ends), now + ARGV[3]",
    "if false then\n  write(owner, fence, math.max(tonumber(ends), now + ARGV[3]",
    "LockRedis-1: a grant whose answer was lost"
  ),
  scripts(
    "an expired lease frees the lease of another",
    "redis.call('HDEL', KEYS[1], owner)\ncount()",
    "redis.call('DEL', KEYS[1])\ncount()",
    "LockRedis-4: an expired lease"
  ),
  scripts(
    "a lease is renewed that the server does not know",
    "return used + permitsOf(owner) > limit and -1 or 0",
    "return 1",
    "LockRedis-4: after FLUSHALL"
  ),
  scripts(
    "an expired grant still counts",
    "    if ends <= now then",
    "    if false then",
    "LockRedis-4: the permits of a holder"
  ),
  scripts(
    "a waiter that left stands in the queue",
    "redis.call('ZREM', KEYS[3], owner)\nlocal was",
    "local was",
    "LockRedis-2: interrupted around the grant"
  ),
  scripts(
    "the last waiter goes first",
    "redis.call('ZRANGE', KEYS[3], 0, 0)[1]",
    "redis.call('ZRANGE', KEYS[3], -1, -1)[1]",
    "LockRedis-7: services take turns"
  ),
  scripts(
    "a newcomer passes a waiter",
    "local isNext = not waiter or waiter == owner or ARGV[5] == '0'",
    "local isNext = true",
    "redis: Permits-2: a writer that waits"
  ),
  scripts(
    "a waiter that was killed gets the lock",
    "if listeners > 0 and millis ~= '0' then",
    "if millis ~= '0' then",
    "LockRedis-7: a waiter that was killed"
  ),
  redis(
    "a release counts the first answers of a quorum only",
    "(values) => freed(values) || this.isMost(values.filter((value) => value === 0).length)",
    "(values) => this.isMost(values.length)",
    "LockRedis-4: with several servers"
  ),
  redis(
    "a fence of a quorum is not written back",
    "this.isAlone || await this.raise(claim, fence)",
    "true",
    "LockRedis-1: with several servers"
  ),
  redis(
    "an interrupted waiter keeps what it was granted",
    "Effect.ignore(ask(\"leave\", () => client.leave(claim)))",
    "Effect.void",
    "LockRedis-2: interrupted around the grant"
  ),
  redis(
    "a server that restarted grants at once",
    "if (guard && oldEnoughIn > 0)",
    "if (guard && oldEnoughIn > 1e9)",
    "LockRedis-5: a server that restarted"
  ),
  redis(
    "a layer closes under its holders",
    "for (const lease of this.leases) lease.end(\"connection\")",
    "",
    "LockRedis-6: cut connections"
  ),
  renewal(
    "a loss is not signalled",
    "    this.stop()\n    this.lose(reason)",
    "    this.stop()",
    "LockRedis-3: a body that blocks"
  ),
  renewal(
    "the deadline is seen by its timer only",
    "    if (!this.isOver && this.left() <= 0) this.end(\"deadline\")\n",
    "",
    "LockRedis-3: a body that blocks"
  ),
  renewal(
    "an extension does not move the deadline",
    "if (lasts - since(sent) > this.left())",
    "if (false)",
    "LockRedis-3: a body that blocks"
  ),
  renewal(
    "a lease is never renewed",
    "    this.renew(this.settings.ttl).catch(",
    "    Promise.reject(0).catch(",
    "LockRedis-3: a server that goes silent"
  )
]

/** None on a machine without the server, where their tests are skipped. */
export const mutants: ReadonlyArray<Mutant> = tool("redis-server") === undefined ? [] : all
