/** Tcp/options: checks the options of `connect` and `serve` before anything is opened. To add an option: its interface, its rule. */
import * as Effect from "effect/Effect"
import { Buffer } from "node:buffer"
import process from "node:process"
import * as Deadline from "../Deadline.ts"

interface Rule {
  /** Completes "has to be …". */
  readonly expected: string
  readonly accepts: (value: any) => boolean
}

const whole = (least: number, most = Number.MAX_SAFE_INTEGER): Rule => ({
  expected: `a whole number, ${least} ${
    most === Number.MAX_SAFE_INTEGER ? "or more" : `to ${most}`
  }`,
  accepts: (value) => Number.isInteger(value) && value >= least && value <= most
})

/** The cores say what a duration is. */
const duration: Rule = {
  expected: `a duration, 0 or more, such as "5 seconds"`,
  accepts: (value) => {
    try {
      return Effect.isEffect(Deadline.exit(Effect.void, value))
    } catch {
      return false
    }
  }
}

// The system cuts a longer path off in silence.
const mostOfPath = process.platform === "linux" ? 107 : 103

const bounds = {
  readTimeout: duration,
  writeTimeout: duration,
  linger: duration,
  host: { expected: "a name or an address", accepts: (value) => typeof value === "string" },
  port: whole(0, 65_535),
  path: {
    expected: `a path of 1 to ${mostOfPath} bytes`,
    accepts: (value) =>
      typeof value === "string" && value !== "" && Buffer.byteLength(value) <= mostOfPath
  }
} satisfies Record<string, Rule>

const tls = {
  expected: "options of node:tls",
  accepts: (value: unknown) => typeof value === "object"
}

export const connectRules: Readonly<Record<string, Rule>> = {
  ...bounds,
  tls: {
    expected: `true, false or ${tls.expected}`,
    accepts: (value) => typeof value === "boolean" || tls.accepts(value)
  },
  connectTimeout: duration
}

export const serveRules: Readonly<Record<string, Rule>> = {
  ...bounds,
  tls,
  backlog: whole(1),
  maxConnections: whole(1),
  drain: duration
}

/** As a URL writes it: an IPv6 address in brackets. */
export const hostAndPort = (host: string, port: number | undefined): string =>
  host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`

/** Checks the options and gives the address that they name. */
export const addressOf = (
  where: string,
  options: {
    readonly host?: string | undefined
    readonly port?: number | undefined
    readonly path?: string | undefined
  },
  rules: Readonly<Record<string, Rule>>
): string => {
  for (const [name, value] of Object.entries(options)) {
    const rule = Object.hasOwn(rules, name) ? rules[name] : undefined
    if (rule === undefined) {
      throw new RangeError(
        `${where} has no option \`${name}\`. Its options: ${Object.keys(rules).join(", ")}.`
      )
    }
    if (value !== undefined && !rule.accepts(value)) {
      throw new RangeError(
        `${where}: \`${name}\` has to be ${rule.expected}; got ${String(value)}.`
      )
    }
  }
  const { host = "localhost", path, port } = options
  if ((path === undefined) === (port === undefined)) {
    throw new RangeError(
      `${where}: give either \`port\`, 0 to 65535, or \`path\`; got ${
        path === undefined ? "none" : "both"
      }.`
    )
  }
  return path ?? hostAndPort(host, port)
}
