/**
 * The public surface, by name: a name that comes, goes or moves shows in a diff here (`npx vitest -u` after a wanted change),
 * and so does a jump in size.
 */
import { describe, expect, it } from "@effect/vitest"
import { build } from "esbuild"
import * as fs from "node:fs"
import * as path from "node:path"
import { gzipSync } from "node:zlib"

const src = path.resolve(import.meta.dirname, "../src")

// A lower-case file or folder is machinery, not a public module; `index` is the package itself.
const modules = fs.readdirSync(src, { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".ts") && (file === "index.ts" || !/(^|\/)[a-z]/.test(file)))
  .map((file) => file.slice(0, -".ts".length))
  .toSorted()

/**
 * Raise it with a reason: the core is loaded by everyone. 28 kB since Pool, Mutex, RwLock and Shared came to Batch and Lock;
 * 37 since ExitStack, the phases of Shutdown, the interop of Managed, the ledger's history and what it tells of each came; 40
 * since every end is bounded: releases share what a shutdown has left, runs nest, stacks do not wait for themselves; 41
 * since the options of each `make` are checked; 45 since Parallel batches requests and has the modes of `Effect.all`, and
 * resources compose, swap and become layers; 48 since waits share timers and have priorities, and every lock is keyed too;
 * 49 since RateLimiter; 52 since the tracker and Nursery; 53 since uncontended brackets are one operation, with their fallback.
 */
const maxGzippedBytes = 53_000

const specifier = (module: string): string => module === "index" ? "holdfast" : `holdfast/${module}`

interface Names {
  readonly values: ReadonlyArray<string>
  readonly types: ReadonlyArray<string>
  readonly internals: ReadonlyArray<string>
}

/** The exports of a source file, read from its text: a type leaves no trace at run time. */
const namesOf = (module: string): Names => {
  const text = fs.readFileSync(path.join(src, `${module}.ts`), "utf8")
  const values = new Set<string>()
  const types = new Set<string>()
  const internals = new Set<string>()
  const declarations =
    /(\/\*\*(?:(?!\*\/)[\s\S])*\*\/\n)?^export (?:declare |abstract |async )*(const|class|function|interface|type|\* as) \*?\s*(\w+)/gm
  for (const [, doc = "", kind, name = ""] of text.matchAll(declarations)) {
    const isType = kind === "interface" || kind === "type"
    const list = isType ? types : doc.includes("@internal") ? internals : values
    if (!(isType && doc.includes("@internal"))) list.add(name)
  }
  // Names that a public module gives on from its rooms.
  for (const [, kind, names = ""] of text.matchAll(/^export (type )?\{([^}]*)\} from/gm)) {
    for (const name of names.split(",")) {
      const given = name.trim().replace(/^.* as /, "")
      const list = kind === undefined && !given.startsWith("type ") ? values : types
      if (given !== "") list.add(given.replace(/^type /, ""))
    }
  }
  return { values: [...values].toSorted(), types: [...types].toSorted(), internals: [...internals] }
}

describe("exports", () => {
  it("the public names", () => {
    const surface = modules.map((module) => {
      const { types, values } = namesOf(module)
      return [
        specifier(module),
        `  ${values.join(" ")}`,
        ...(types.length === 0 ? [] : [`  type ${types.join(" ")}`])
      ].join("\n")
    }).join("\n")
    expect(`\n${surface}\n`).toMatchInlineSnapshot(`
      "
      holdfast/Batch
        BatchFailed run
        type Answer Ending Feed ItemFailure Options Outcome Progress Report Source Tally Verdict
      holdfast/Batch/Checkpoint
        Checkpoint CheckpointError ItemDead Superseded make
        type Backend Checkpoint CheckpointFailure DeadLetter DeadLetters Letter Marked
      holdfast/Batch/Postgres
        checkpoint deadLetters layer layerConfig status
        type Options
      holdfast/Batch/Progress
        every
        type Progress
      holdfast/Batch/Streams
        outcomes source
      holdfast/Deadline
        exit
      holdfast/ExitStack
        EnterTimeout TypeId layer make use
        type EnterOptions ExitStack InUse Options ReleaseOptions Replaces
      holdfast/Files
        FileError LogFileClosed LogFileFull atomicSink draft draftOf layerLogger lockedPath logFile publish sweep tail tempDirectory tempFile toFileError writeAtomic
        type Bytes Draft DraftOfOptions DraftOptions Durability LogFile LogFileOptions LogFileStats LoggerOptions PublishOptions RotateOptions TailOptions TempOptions WriteOptions
      holdfast/Http
        BadRedirect BadRequest BadUrl ChecksumMismatch ConnectFailed HttpStatus Session SessionClosed Stalled TooLarge TooManyRedirects TransportFailed Truncated UnsupportedEncoding download downloadAll isRetryable retryPolicy session withBounds
        type Bounds DownloadAllOptions DownloadError DownloadItem DownloadOptions DownloadProgress Downloaded RetryOptions SessionOptions SessionService SessionStats Tls
      holdfast/Http/Server
        layer layerConfig
        type Checks Options
      holdfast/Job
        ItemTimeout make
        type Commits Job Processed Work
      holdfast/Ledger
        Ledger StillHeld TypeId assertEmpty describe describeDeadlock events layer layerConfig leaks make snapshot unsafeInForce unsafeSite withOwner withSite withSpan
        type Deadlock Details Entry Event LayerOptions Options Recorder Service Site Sites Snapshot SpanOptions State Totals
      holdfast/Ledger/View
        LedgerFormatError html json parse svg text
        type SvgOptions TextOptions
      holdfast/Lock
        Lock LockBackendError LockLost LockReentry LockTimeout LockUnsupported get inspect layerMemory make makeMemory tryGet tryWithLock withLock withLocks
        type Backend Bodies Body Get Grant Holder Lease LockError LossReason MakeOptions Options Request Service TryOptions UnboundedOptions WithLock WithLocks
      holdfast/Lock/File
        layer layerConfig make
        type Options
      holdfast/Lock/Permits
        DistributedSemaphore SharedLock layer layerMemory make
        type Backend Bracket Get Options Request SemaphoreService Services SharedService TryBracket
      holdfast/Lock/Postgres
        guard layer layerAdvisory layerConfig layerLease layerLeaseConfig make makeLease transact
        type Address LeaseOptions Options TransactOptions
      holdfast/Lock/Redis
        layer layerConfig layerPermits make
        type Options
      holdfast/Lock/Singleton
        run
      holdfast/Main
        run
        type Options
      holdfast/Managed
        GeneratorDidNotYield GeneratorFailed GeneratorYieldedTwice HotswapTypeId Interrupted OwnerClosed ReleaseTimeout TypeId all flatMap fromAsyncGenerator fromDisposable fromLayer fromScoped gen hotswap layer make map toAsyncDisposable use useOption
        type AllOptions GeneratorOptions Held Hotswap Managed Options Owned ReleaseReason Restore Settings
      holdfast/Mutex
        MutexReentry MutexTimeout TypeId get getKey make makeKeyed size stats statsKey tryWithLock tryWithLockKey unsafeMake withLock withLockKey withLockKeys
        type KeyedMutex Mutex Options Stats TypeId
      holdfast/Nursery
        Nursery StillInUse TypeId awaitAll background cancel contain layer make run scoped start startReady stats timeout timeoutFail tracked tracker
        type Nursery Options RunOptions Stats TypeId
      holdfast/Parallel
        all forEach race raceAll raceFirst
        type Options
      holdfast/Pool
        PoolClosed PoolClosedByHolder PoolExhausted PoolLeak PoolTimeout TypeId awaitIdle close evictIdle get holders invalidate invalidateAll layer layerConfig lease make stats tryUse unsafeStats use
        type Bounds ErrorsOf Functions Holder Lease Options Pool PoolError PoolStats Reason Settings TimeoutOf TypeId WaitOptions
      holdfast/Pool/Control
        detach observe resize
        type Event
      holdfast/Pool/Keyed
        TypeId awaitIdle close get holders invalidate invalidateKey layer lease make size stats statsKey tryUse use
        type KeyedPool Options TypeId
      holdfast/Pool/Shared
        TypeId get invalidate layer make stats use
        type Options SharedPool SharedPoolStats TypeId
      holdfast/Postgres
        ConnectionLost ForeignStatement InvalidUrl Postgres PostgresClosed PostgresExhausted PostgresTimeout PostgresUnavailable SessionBusy TransactionAborted TransactionClosed TransactionOutcomeUnknown TransactionStuck causeOf isConnectionLost layer layerConfig layerEmbedded make onCommit onRollback sqlState transaction
        type Cause CopyInput CopyStatement Gap Notification Options PoolOptions ReservedSession Service Stats TransactionOptions
      holdfast/Postgres/Embedded
        Embedded EmbeddedFailed EmbeddedUnavailable layer make
        type Exited Options Server
      holdfast/RateLimiter
        RateLimiterTimeout TypeId layer layerConfig make makeKeyed size stats statsKey tryWithLimit tryWithLimitKey withLimit withLimitKey
        type KeyedRateLimiter Options RateLimiter Stats TakeOptions TypeId
      holdfast/RwLock
        RwLockReentry RwLockTimeout TypeId getRead getReadKey getWrite getWriteKey make makeKeyed size stats statsKey tryWithRead tryWithReadKey tryWithWrite tryWithWriteKey unsafeMake withRead withReadKey withWrite withWriteDowngraded withWriteKey
        type KeyedRwLock Mode Options RwLock Stats TypeId
      holdfast/Semaphore
        SemaphoreCancelled SemaphoreClosed SemaphoreTimeout TypeId cancelWaiters close get getKey make makeKeyed resize size stats statsKey takeInMask tryWithPermits tryWithPermitsKey unsafeMake unsafeRelease unsafeStats unsafeTryTake withPermit withPermits withPermitsKey
        type Cancelled KeyedSemaphore Options Restore Semaphore Stats TimeoutOf TypeId WaitOptions
      holdfast/Shared
        SharedClosed SharedClosedByHolder SharedFull TypeId get getKey invalidate invalidateKey keys layer layerKeyed make makeKeyed refCount size stats statsKey touch touchKey use useKey
        type InvalidateOptions KeyedOptions KeyedShared Options Shared Stats
      holdfast/Shutdown
        Shutdown ShutdownTimeout drains inFlight isReady onDrain onStop phase reason report request requested run shortfall unsafeMake unsafeOfProcess
        type Budgets Ended FiberReport HookReport Options Phase PhaseReport Reason Report ResourceReport Service Unfinished
      holdfast/Tcp
        TcpClosed TcpConnectFailed TcpConnectionLost TcpListenFailed TcpTimeout TcpTooLong TcpTruncated TypeId abort connect end isConnection layer layerConfig read readExactly readUntil serve stream write
        type ConnectOptions Connection ConnectionOptions ServeOptions Server ServerStats TcpError
      holdfast/Testing
        Explore Probe
      holdfast/Testing/Explore
        certify format html interleavings interruptions isTokenOf replay svg toProgram
        type Faults Options Replay Schedules Subject
      holdfast/Testing/Probe
        FaultInjected pad unsafeMake
        type Counter Fault Handle Options Probe WrapOptions
      holdfast/Testing/Vitest
        it
        type Interleaved Methods Safe
      holdfast
        Batch Deadline ExitStack Job Ledger Lock Managed Mutex Nursery Parallel Pool RateLimiter RwLock Semaphore Shared Shutdown
      "
    `)
  })

  // What builds on vitest is loaded by the tests that use it.
  for (const module of modules.filter((name) => name !== "Testing/Vitest")) {
    it(`${specifier(module)} loads, and exports what its text says`, async () => {
      const loaded: object = await import(specifier(module))
      const { internals, values } = namesOf(module)
      expect(Object.keys(loaded).toSorted()).toEqual([...values, ...internals].toSorted())
    })
  }

  /** Without effect, as a bundler has it. */
  const gzippedBytes = async (exported: string): Promise<number> => {
    const bundle = await build({
      stdin: { contents: `export ${exported} from "./index.ts"`, resolveDir: src, loader: "ts" },
      bundle: true,
      minify: true,
      format: "esm",
      external: ["effect", "effect/*"],
      write: false
    })
    return gzipSync(bundle.outputFiles[0]!.contents).byteLength
  }

  it("the whole core, without effect, is small", async () => {
    const bytes = await gzippedBytes("*")
    expect(bytes).toBeGreaterThan(1_000)
    expect(bytes).toBeLessThan(maxGzippedBytes)
  })

  it("a program that needs only Pool loads at most 17 kB", async () => {
    const bytes = await gzippedBytes("{ Pool }")
    expect(bytes).toBeGreaterThan(1_000)
    expect(bytes).toBeLessThan(17_000)
  })
})
