/**
 * The core: everything that needs nothing but `effect`. Adapters are imported by their own paths (`holdfast/Postgres`).
 *
 * @since 0.1.0
 */
export * as Batch from "./Batch.ts"
export * as Deadline from "./Deadline.ts"
export * as ExitStack from "./ExitStack.ts"
export * as Job from "./Job.ts"
export * as Ledger from "./Ledger.ts"
export * as Lock from "./Lock.ts"
export * as Managed from "./Managed.ts"
export * as Mutex from "./Mutex.ts"
export * as Nursery from "./Nursery.ts"
export * as Parallel from "./Parallel.ts"
export * as Pool from "./Pool.ts"
export * as RateLimiter from "./RateLimiter.ts"
export * as RwLock from "./RwLock.ts"
export * as Semaphore from "./Semaphore.ts"
export * as Shared from "./Shared.ts"
export * as Shutdown from "./Shutdown.ts"
