/**
 * Postgres/options: the options of a pool, checked and resolved once.
 *
 * DESIGN. The names of `PgClient.layer` are second names of ours (`aliases`), so its options are options here.
 * To add an option: `PoolOptions` or `Options`, `rules`, `resolve`.
 *
 * INVARIANTS
 * - PgOptions-1 An option that does not exist, a value that cannot be, or one idea under two names is a `RangeError` defect that
 *   says what to write; it is never ignored.
 */
import type { PgClient } from "@effect/sql-pg"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type { Duplex } from "node:stream"
import type { ConnectionOptions } from "node:tls"
import * as Pg from "pg"
import { InvalidUrl } from "./errors.ts"
import type { Settings } from "./pool.ts"

/**
 * How the pool behaves. All of it is optional.
 *
 * @category models
 * @since 0.1.0
 */
export interface PoolOptions {
  /** Sessions at most. Default 10. */
  readonly max?: number | undefined
  /** Sessions that are kept open. Default 0. */
  readonly min?: number | undefined
  /** For a connection to be ready for statements. Default 5 seconds. */
  readonly connectTimeout?: Duration.DurationInput | undefined
  /** For the wait for a session. Default 30 seconds; 0 no bound. */
  readonly acquireTimeout?: Duration.DurationInput | undefined
  /** How many may wait for a session; the next is refused at once. Default no bound. */
  readonly maxWaiters?: number | undefined
  /** A session older than this is replaced once it is back, up to a tenth earlier. Default 30 minutes; 0 never. */
  readonly maxLifetime?: Duration.DurationInput | undefined
  /** Idle sessions beyond `min` are closed after this. Default 10 minutes; 0 never. */
  readonly idleTimeout?: Duration.DurationInput | undefined
  /** A session that was idle this long has to answer within `cancelTimeout` before it is lent. Default 1 second. */
  readonly validateAfterIdle?: Duration.DurationInput | undefined
  /** An idle session is asked for an answer this often, and replaced without one. Default never. */
  readonly keepAlive?: Duration.DurationInput | undefined
  /** Warn once, with fiber, span and line, when a session has been held this long. Default never. */
  readonly leakAfter?: Duration.DurationInput | undefined
  /** OpenTelemetry's `db.client.connection.*`. Default false: they cost about 2 µs a statement. */
  readonly metrics?: boolean | undefined
  /** For the server to confirm a cancel, a ROLLBACK or a goodbye before the socket is cut. Default 1 second. */
  readonly cancelTimeout?: Duration.DurationInput | undefined
  /** How long closing waits for borrowers before it cancels what they run. Default 500 milliseconds. */
  readonly drain?: Duration.DurationInput | undefined
  /**
   * When the session of a statement or transaction is wiped (DISCARD ALL) for its next user: `"dirty"`, after a text that may leave
   * something in it; `"always"`, for functions behind triggers, views and defaults that do; `"transaction"`, never, for a pooler
   * that gives each transaction another session. Default `"dirty"`.
   */
  readonly reset?: "dirty" | "always" | "transaction" | undefined
  /** Shown in `pg_stat_activity`. Default `"holdfast"`. */
  readonly applicationName?: string | undefined
  /** Attributes of the span of each statement. */
  readonly spanAttributes?: Record<string, unknown> | undefined
  /** The names of columns as the program has them: `String.snakeToCamel`. */
  readonly transformResultNames?: ((name: string) => string) | undefined
  /** The names of identifiers as the database has them: `String.camelToSnake`. */
  readonly transformQueryNames?: ((name: string) => string) | undefined
  /** Whether names inside JSON are transformed too. Default true. */
  readonly transformJson?: boolean | undefined
  /** Parsers of the values of a result. */
  readonly types?: Pg.CustomTypesConfig | undefined
  /** The name that `PgClient.layer` has for `max`. */
  readonly maxConnections?: number | undefined
  /** The name that `PgClient.layer` has for `min`. */
  readonly minConnections?: number | undefined
  /** The name that `PgClient.layer` has for `maxLifetime`. */
  readonly connectionTTL?: Duration.DurationInput | undefined
}

type Secret = string | Redacted.Redacted

/**
 * The address of the server, and how the pool behaves; the options of `PgClient.layer` fit. Values in `url` win over the fields;
 * values in neither come from the usual environment variables (`PGHOST`, `PGUSER`, …).
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends PoolOptions {
  /** `postgres://user:password@host:port/database?sslmode=require`, or `postgres:///database?host=/socket/directory`. */
  readonly url?: Secret | undefined
  /** A name, an address, or the directory of a Unix socket. */
  readonly host?: string | undefined
  readonly port?: number | undefined
  readonly user?: string | undefined
  /** An effect is run for each connection: for a token that does not live long. */
  readonly password?: Secret | Effect.Effect<Secret, unknown> | undefined
  readonly database?: string | undefined
  readonly ssl?: boolean | ConnectionOptions | undefined
  /** The socket to the server, instead of one of Node. */
  readonly stream?: (() => Duplex) | undefined
  /** The name that `PgClient.layer` has for `user`. */
  readonly username?: string | undefined
  /** Has no effect, as in `PgClient.layer`. */
  readonly path?: string | undefined
}

// Checking.

interface Rule {
  readonly expected: string
  readonly accepts: (value: any) => boolean
}

const isWholeNumber = (least: number) => (value: unknown): boolean =>
  Number.isSafeInteger(value) && Number(value) >= least

const millisOf = (value: unknown): number => {
  if (typeof value === "number") return value
  const decoded = Duration.decodeUnknown(value)
  // Effect reads a negative duration as zero.
  const isNegative = typeof value === "string" && value.trim().startsWith("-")
  return decoded._tag === "Some" && !isNegative ? Duration.toMillis(decoded.value) : NaN
}

const size: Rule = { expected: "a whole number, 1 or more", accepts: isWholeNumber(1) }
const count: Rule = { expected: "a whole number, 0 or more", accepts: isWholeNumber(0) }
const duration: Rule = {
  expected: `a duration, 0 or more, such as "5 seconds"`,
  accepts: (value) => millisOf(value) >= 0
}
const bound: Rule = {
  expected: `a duration above 0, such as "5 seconds"`,
  accepts: (value) => millisOf(value) > 0
}
const typed = (type: string, expected: string): Rule => ({
  expected,
  accepts: (value) => typeof value === type
})
const text = typed("string", "a string")
const flag = typed("boolean", "true or false")
const callback = typed("function", "a function")
const object = typed("object", "an object")
const isSecret = (value: unknown): boolean =>
  typeof value === "string" || Redacted.isRedacted(value)

const rules: { readonly [K in keyof Options]-?: Rule } = {
  max: size,
  min: count,
  connectTimeout: bound,
  acquireTimeout: duration,
  maxWaiters: count,
  maxLifetime: duration,
  idleTimeout: duration,
  validateAfterIdle: duration,
  keepAlive: duration,
  leakAfter: duration,
  metrics: flag,
  cancelTimeout: bound,
  drain: duration,
  reset: {
    expected: `"dirty", "always" or "transaction"`,
    accepts: (value) => ["dirty", "always", "transaction"].includes(value)
  },
  applicationName: text,
  spanAttributes: object,
  transformResultNames: callback,
  transformQueryNames: callback,
  transformJson: flag,
  types: object,
  maxConnections: size,
  minConnections: count,
  connectionTTL: duration,
  url: { expected: "a string or a Redacted", accepts: isSecret },
  host: text,
  port: { expected: "a port", accepts: (value) => isWholeNumber(1)(value) && value < 65_536 },
  user: text,
  password: {
    expected: "a string, a Redacted, or an effect of one",
    accepts: (value) => isSecret(value) || Effect.isEffect(value)
  },
  database: text,
  ssl: {
    expected: "true, false or options",
    accepts: (value) => flag.accepts(value) || object.accepts(value)
  },
  stream: callback,
  username: text,
  path: text
}

const aliases = {
  maxConnections: "max",
  minConnections: "min",
  connectionTTL: "maxLifetime",
  username: "user"
} as const

const secrets = new Set<string>(["url", "password"])

const refuse = (message: string): never => {
  throw new RangeError(`Postgres.make: ${message}`)
}

/** INVARIANT PgOptions-1. */
const check = (options: Options): Options => {
  for (const [name, value] of Object.entries(options)) {
    const rule = Object.hasOwn(rules, name) ? rules[name as keyof Options] : undefined
    if (rule === undefined) {
      refuse(`there is no option \`${name}\`. There are: ${Object.keys(rules).join(", ")}.`)
    } else if (value !== undefined && !rule.accepts(value)) {
      refuse(
        `\`${name}\` has to be ${rule.expected}${
          secrets.has(name) ? "" : `; got ${String(value)}`
        }.`
      )
    }
  }
  const named: Record<string, unknown> = {}
  for (const [alias, name] of Object.entries(aliases) as Array<[keyof Options, keyof Options]>) {
    if (options[alias] === undefined) continue
    if (options[name] !== undefined) {
      refuse(`\`${alias}\` and \`${name}\` are one option; write \`${name}\`.`)
    }
    named[name] = options[alias]
  }
  const all: Options = { ...options, ...named }
  const { max = 10, min = 0 } = all
  if (min > max) refuse(`\`min\` ${min} is more than \`max\` ${max}.`)
  return all
}

// Resolving.

export type Resolved = Settings & {
  readonly options: Options
  readonly address: {
    readonly host: string
    readonly port: number
    readonly user: string
    readonly database: string
  }
}

const revealed = (secret: Secret): string =>
  Redacted.isRedacted(secret) ? Redacted.value(secret) : secret

const passwordOf = ({ password }: Options): Pg.ClientConfig["password"] => {
  if (!Effect.isEffect(password)) return password === undefined ? undefined : revealed(password)
  return () => Effect.runPromise(Effect.map(password, revealed))
}

const clientOf = (options: Options): Pg.ClientConfig => ({
  connectionString: options.url === undefined ? undefined : revealed(options.url),
  host: options.host,
  port: options.port,
  user: options.user,
  password: passwordOf(options),
  database: options.database,
  ssl: options.ssl,
  ...options.stream && { stream: options.stream },
  types: options.types,
  application_name: options.applicationName ?? "holdfast",
  // A server that vanished is noticed after 10 s and as many probes, one a second.
  keepAlive: true,
  keepAliveInitialDelayMillis: 10_000
})

/** Throws a `RangeError`; fails with `InvalidUrl`. */
export const resolve = (given: Options): Effect.Effect<Resolved, InvalidUrl> =>
  Effect.suspend(() => {
    const options = check(given)
    const client = clientOf(options)
    const url = client.connectionString
    if (url !== undefined && !/^(postgres|postgresql):\/\//.test(url)) {
      return new InvalidUrl({ reason: "it does not begin with postgres:// or postgresql://" })
    }
    let parsed: Pg.Client
    try {
      parsed = new Pg.Client(client)
    } catch {
      // The parser's own message may quote the URL, password and all.
      return new InvalidUrl({ reason: "its host, port or escapes are malformed" })
    }
    const { database, host, port, user } = parsed
    return Effect.succeed({
      options,
      client,
      address: { host, port, user: user ?? "", database: database ?? user ?? "" },
      applicationName: options.applicationName ?? "holdfast",
      connectTimeout: Duration.decode(options.connectTimeout ?? "5 seconds"),
      cancelTimeout: Duration.decode(options.cancelTimeout ?? "1 second"),
      drain: Duration.decode(options.drain ?? "500 millis"),
      reset: options.reset ?? "dirty",
      pool: {
        max: options.max ?? 10,
        minIdle: options.min ?? 0,
        acquireTimeout: options.acquireTimeout ?? "30 seconds",
        maxWaiters: options.maxWaiters,
        idleTimeout: options.idleTimeout ?? "10 minutes",
        maxLifetime: options.maxLifetime ?? "30 minutes",
        validateAfterIdle: options.validateAfterIdle ?? "1 second",
        keepAlive: options.keepAlive,
        leakDetection: options.leakAfter,
        metrics: options.metrics === true ? "db.client.connection" : false
      }
    })
  })

const redacted = (secret: unknown): Redacted.Redacted | undefined =>
  typeof secret === "string"
    ? Redacted.make(secret)
    : Redacted.isRedacted(secret)
    ? secret as Redacted.Redacted
    : undefined

/** What `PgClient.config` shows: where it has gone. */
export const configOf = ({ address, options }: Resolved): PgClient.PgClientConfig => ({
  host: address.host,
  port: address.port,
  username: address.user,
  database: address.database,
  url: redacted(options.url),
  password: redacted(options.password),
  ssl: options.ssl,
  applicationName: options.applicationName,
  maxConnections: options.max,
  minConnections: options.min,
  idleTimeout: options.idleTimeout,
  connectionTTL: options.maxLifetime,
  connectTimeout: options.connectTimeout,
  spanAttributes: options.spanAttributes,
  transformResultNames: options.transformResultNames,
  transformQueryNames: options.transformQueryNames,
  transformJson: options.transformJson,
  types: options.types
})
