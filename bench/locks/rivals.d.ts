/** What the benches use of packages that come without types, or whose types their `exports` hide. */
declare module "proper-lockfile" {
  export const lock: (file: string, options: {
    readonly realpath: boolean
    readonly stale: number
    readonly update: number
    readonly retries: object
    readonly onCompromised: () => void
  }) => Promise<() => Promise<void>>
}

declare module "redlock" {
  interface Lock {
    readonly extend: (ttl: number) => Promise<Lock>
    readonly unlock: () => Promise<void>
  }
  export default class Redlock {
    constructor(clients: ReadonlyArray<object>, settings: { readonly retryCount: number })
    lock(key: string, ttl: number): Promise<Lock>
  }
}

declare module "redlock-5" {
  export default class Redlock {
    constructor(
      clients: ReadonlyArray<object>,
      settings: { readonly retryCount: number; readonly automaticExtensionThreshold: number }
    )
    on(event: "error", listener: () => void): void
    using(
      keys: ReadonlyArray<string>,
      ttl: number,
      body: (lost: AbortSignal) => Promise<void>
    ): Promise<void>
  }
}
