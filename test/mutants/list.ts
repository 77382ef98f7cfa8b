/**
 * The mutants: each takes away one thing that makes a primitive let go (a mask, a pass-on, a cancel handler) or does it one
 * step late. The explorer must find each; the unchanged copy must be safe.
 */
export interface Mutant {
  readonly what: string
  /** Below `src`. */
  readonly file: string
  /** Stands in the file exactly `times` times (default once); all are replaced. */
  readonly from: string
  readonly to: string
  readonly times?: number
  /** Subjects of test/seeds/ours.ts, by the start of their names; one of them must break a law. */
  readonly subjects: ReadonlyArray<string>
}

const mutant = (
  what: string,
  file: string,
  from: string,
  to: string,
  ...subjects: ReadonlyArray<string>
): Mutant => ({ what, file, from, to, subjects })

/** A mask that masks nothing. The copy is not type-checked. */
const masked = "Effect.uninterruptibleMask("
const unmasked = "((body) => Effect.suspend(() => body((effect) => effect)))("
const withoutMask = (
  what: string,
  file: string,
  rest: string,
  ...subjects: ReadonlyArray<string>
): Mutant => mutant(what, file, `${masked}${rest}`, `${unmasked}${rest}`, ...subjects)

const everyWaiter = ["Semaphore.withPermit", "Mutex.withLock", "RwLock.withWrite"]

export const mutants: ReadonlyArray<Mutant> = [
  // The line.
  mutant(
    "a granted waiter that is interrupted keeps its grant",
    "internal/waitQueue.ts",
    "    waiter.watch?.left(cause)\n    onLeave(true)\n",
    "",
    ...everyWaiter
  ),
  mutant(
    "a granted waiter that is interrupted gives on as if it had only left",
    "internal/waitQueue.ts",
    "onLeave(true)",
    "onLeave(false)",
    ...everyWaiter
  ),
  mutant(
    "an interrupted waiter stays in line",
    "internal/waitQueue.ts",
    "    leave(queue, waiter, \"cancelled\", () => cause)\n    onLeave(false)",
    "    onLeave(false)",
    ...everyWaiter
  ),
  mutant(
    "no cancel handler at all",
    "internal/waitQueue.ts",
    "    onFailure: (cause) => {\n      if (fiber !== undefined) queues.delete(fiber)\n",
    "    onFailure: (cause) => {\n      if (true) return Effect.failCause(cause)\n",
    ...everyWaiter
  ),
  mutant(
    "the wait registers its wake-up one step late and misses a grant",
    "internal/waitQueue.ts",
    "    waiter.resume = () => resume(next)\n    if (waiter.state !== \"queued\") resume(next)",
    "    queueMicrotask(() => {\n      waiter.resume = () => resume(next)\n    })",
    ...everyWaiter
  ),
  mutant(
    "a waiter does not look whether it was granted before it registered",
    "internal/waitQueue.ts",
    "    if (waiter.state !== \"queued\") resume(next)\n",
    "",
    // One of the few that the quick look does not find.
    "RwLock.withWrite, between readers"
  ),
  mutant(
    "a grant does not wake",
    "internal/waitQueue.ts",
    "  if (state !== \"cancelled\") waiter.resume?.()\n",
    "",
    ...everyWaiter
  ),
  // Handing over.
  mutant(
    "a user in a mask gives nothing back",
    "internal/handover.ts",
    "    ending.run()\n    return exit",
    "    return exit",
    ...everyWaiter
  ),
  mutant(
    "the give-back of a mask is one step late and can be cut off",
    "internal/handover.ts",
    "    ending.run()\n    return exit",
    "    return Effect.zipRight(Effect.interruptible(Effect.sync(() => ending.run())), exit)",
    ...everyWaiter
  ),
  mutant(
    "nothing at the end of a user in a mask",
    "internal/line.ts",
    "Handover.useInMask(effect, restore, line, ending)",
    "restore(effect)",
    ...everyWaiter
  ),
  mutant(
    "what one step takes is not given back",
    "internal/line.ts",
    "        if (ending !== undefined) pushFrame(fiber, ending)\n",
    "",
    ...everyWaiter
  ),
  mutant(
    "a waiter without a mask stays in line when it is interrupted",
    "internal/waitQueue.ts",
    "    queues.delete(fiber)\n    quit(queue, waiter, onLeave)\n",
    "    queues.delete(fiber)\n",
    ...everyWaiter
  ),
  mutant(
    "a waiter without a mask gives back nothing after its use",
    "internal/waitQueue.ts",
    "    end = () => ending?.run()\n",
    "    end = () => {}\n",
    ...everyWaiter
  ),
  // What the ledger is told.
  mutant(
    "a granted waiter that is interrupted stays in the ledger",
    "internal/waitQueue.ts",
    "    waiter.watch?.left(cause)\n    onLeave(true)\n",
    "    onLeave(true)\n",
    ...everyWaiter
  ),
  mutant(
    "what came back from a bracket or a scope stays in the ledger",
    "internal/line.ts",
    "  hold?.left()\n  line.giveBack(need, owner)",
    "  line.giveBack(need, owner)",
    "Semaphore.withPermit"
  ),
  mutant(
    "a lock that came back stays in the ledger",
    "internal/line.ts",
    "  hold?.left()\n  line.giveBack(need, owner)",
    "  line.giveBack(need, owner)",
    "Mutex."
  ),
  mutant(
    "a reader that leaves with its scope stays in the ledger",
    "internal/line.ts",
    "  hold?.left()\n  line.giveBack(need, owner)",
    "  line.giveBack(need, owner)",
    "RwLock.getRead"
  ),
  mutant(
    "a writer that leaves stays in the ledger",
    "RwLock.ts",
    "    hold?.left()\n    this.giveBack(need)",
    "    this.giveBack(need)",
    "RwLock.withWrite"
  ),
  mutant(
    "a writer who reads on stays in the ledger",
    "RwLock.ts",
    "    hold?.left()\n    this.writing = false",
    "    this.writing = false",
    "RwLock.withWriteDowngraded"
  ),
  mutant(
    "who leaves what is shared stays in the ledger",
    "Shared/instances.ts",
    "  user.hold?.left(Exit.isFailure(exit) ? exit.cause : undefined)\n",
    "",
    "Shared.use"
  ),
  mutant(
    "an item that came back stays in the ledger",
    "Pool/lend.ts",
    "  item.hold?.left()\n",
    "",
    "Pool.use"
  ),
  // Lines: Semaphore, Mutex, RwLock.
  ...["Semaphore.withPermit", "Mutex.withLock", "RwLock.withWrite"].flatMap((subject) => [
    withoutMask(
      `the bracket of ${subject} without its mask`,
      "internal/line.ts",
      "(restore) => {\n      const line = source.line()\n      const asker = line.asker()\n      return takeInMask<",
      subject
    ),
    mutant(
      `the wait of ${subject} is restored as a whole, grant and all`,
      "internal/line.ts",
      "Effect.flatMap(wait(line, need, owner, restore, hold, options), (",
      "Effect.flatMap(restore(wait(line, need, owner, restore, hold, options)), (",
      subject
    ),
    mutant(
      `the bracket of ${subject} can be cut before its user runs`,
      "internal/line.ts",
      "Effect.flatMap(wait(line, need, owner, restore, hold, options), (",
      "Effect.flatMap(Effect.zipLeft(wait(line, need, owner, restore, hold, options), restore(Effect.yieldNow())), (",
      subject
    ),
    mutant(
      `a waiter of ${subject} that is granted and interrupted keeps what it got`,
      "internal/line.ts",
      "if (wasGranted) return line.giveBack(need, owner)",
      "if (wasGranted) return",
      subject
    )
  ]),
  withoutMask(
    "the hold of a scope without its mask",
    "internal/line.ts",
    "(restore) => {\n    return Effect.flatMap(Effect.scope, (scope)",
    "Semaphore.get"
  ),
  withoutMask(
    "a try without its mask",
    "internal/line.ts",
    "(restore): Effect.Effect<Option.Option<A>, E | E2, R> => {",
    "Semaphore.tryWithPermits"
  ),
  mutant(
    "a key that is taken back stays in the map",
    "internal/line.ts",
    "          line.pins--\n          line.settle()\n",
    "          line.pins--\n",
    "KeyedMutex.withLockKeys"
  ),
  mutant(
    "several keys are never unpinned",
    "internal/line.ts",
    "          line.pins--\n          line.settle()\n",
    "",
    "KeyedMutex.withLockKeys"
  ),
  mutant(
    "a waiter that leaves serves nobody behind it",
    "internal/line.ts",
    "    line.serve()\n    line.settle()\n  }\n",
    "    line.settle()\n  }\n",
    "RwLock.withRead beside a writer",
    "RwLock.withWrite"
  ),
  mutant(
    "a release of permits serves nobody",
    "Semaphore.ts",
    "    if (this.queue.size > 0) this.serve()\n",
    "",
    "Semaphore.withPermit"
  ),
  mutant(
    "a permit is released twice",
    "Semaphore.ts",
    "    this.free = free\n    if",
    "    this.free = free + permits\n    if",
    "Semaphore.withPermit"
  ),
  mutant(
    "a permit of a key leaves the key in the map",
    "Semaphore.ts",
    "    if (this.queue.size > 0) this.serve()\n    this.settle()\n",
    "    if (this.queue.size > 0) this.serve()\n",
    "KeyedSemaphore.withPermitsKey"
  ),
  mutant(
    "a closed semaphore keeps its waiters",
    "Semaphore.ts",
    "    WaitQueue.refuse(line.queue, () => refusal)\n",
    "",
    "Semaphore.close"
  ),
  mutant(
    "a mutex that comes back serves nobody",
    "Mutex.ts",
    "    this.holder = undefined\n    this.serve()\n",
    "    this.holder = undefined\n",
    "Mutex.withLock"
  ),
  mutant(
    "a writer that leaves serves nobody",
    "RwLock.ts",
    "    else this.writing = false\n    this.serve()\n",
    "    else this.writing = false\n",
    "RwLock.withWrite"
  ),
  // Shared.
  withoutMask(
    "a use of what is shared without its mask",
    "Shared.ts",
    "(restore) =>\n    enterInMask(groupOf(self), key, restore, site, (instance, user, value) =>\n      Lent.useThen(",
    "Shared.use"
  ),
  mutant(
    "who is interrupted while it opens stays a user",
    "Shared/instances.ts",
    "    onFailure: (cause) => leave(instance, user, Exit.failCause(cause)),\n",
    "    onFailure: (cause) => Effect.failCause(cause),\n",
    "Shared.use, slow"
  ),
  mutant(
    "a user that fails stays a user",
    "Shared.ts",
    "(exit) => leave(instance, user, exit)",
    "(exit) => Exit.isFailure(exit) ? exit : leave(instance, user, exit)",
    "Shared.use"
  ),
  mutant(
    "the last user to leave does not end the instance",
    "Shared/instances.ts",
    "    this.users.delete(user)\n    this.settle()",
    "    this.users.delete(user)",
    "Shared.use"
  ),
  // Managed.
  withoutMask(
    "Managed.use without its mask",
    "Managed.ts",
    "(restore) =>\n    self instanceof Single",
    "Managed.use",
    "No ledger: Managed.use"
  ),
  withoutMask(
    "Managed.useOption without its mask",
    "Managed.ts",
    "(restore) => bracketInMask(self, restore, f, endChanging",
    "Managed.useOption"
  ),
  mutant(
    "a scoped acquire is registered one step late",
    "Managed/resource.ts",
    "        : Effect.flatMap(managed.openInMask(restore, site), (",
    "        : Effect.flatMap(Effect.zipLeft(managed.openInMask(restore, site), restore(Effect.yieldNow())), (",
    "Managed in a scope"
  ),
  mutant(
    "the hold of a user that fails is not ended",
    "Managed/resource.ts",
    "onFailure: (cause) => this.endUse(hold, Exit.failCause(cause)),",
    "onFailure: (cause) => Effect.failCause(cause),",
    "No ledger: Managed.use"
  ),
  mutant(
    "a release of one step is taken for done",
    "internal/release.ts",
    "  if (isInstant(effect)) {",
    "  if (isInstant(effect)) return then(ended(release, Exit.void, exit))\n  if (isInstant(effect)) {",
    "Managed.use and in a scope, releases of one step"
  ),
  mutant(
    "an abandoned release has no hard way",
    "internal/release.ts",
    "  if (onOverrun === undefined) return",
    "  if (true) return",
    "Managed.use, a release that hangs"
  ),
  mutant(
    "all: what fails to open leaves the others open",
    "Managed/all.ts",
    "onFailure: (cause) => endUnchanged(this.opened(opened, undefined), Exit.failCause(cause)),",
    "onFailure: (cause) => Effect.failCause(cause),",
    "Managed.all"
  ),
  withoutMask(
    "all: a member is opened without a mask",
    "Managed/all.ts",
    "(restore) => Effect.map(member.openInMask(restore, site), keep))",
    "Managed.all"
  ),
  mutant(
    "all: a member is kept one step late",
    "Managed/all.ts",
    "Effect.map(member.openInMask(restore, site), keep)",
    "Effect.map(Effect.zipLeft(member.openInMask(restore, site), restore(Effect.yieldNow())), keep)",
    "Managed.all"
  ),
  mutant(
    "all: released together, the last is forgotten",
    "Managed/all.ts",
    "{ count: members.length, worker }),\n      () => causes",
    "{ count: members.length - 1, worker }),\n      () => causes",
    "Managed.all, released together"
  ),
  mutant(
    "all: released in turn, the first is forgotten",
    "Managed/all.ts",
    "    Effect.reduceRight(members, Cause.empty",
    "    Effect.reduceRight(members.slice(1), Cause.empty",
    "Managed.all"
  ),
  mutant(
    "flatMap: what fails to open leaves the first open",
    "Managed/all.ts",
    "onFailure: (cause) => endUnchanged(first, Exit.failCause(cause)),",
    "onFailure: (cause) => Effect.failCause(cause),",
    "Managed.flatMap"
  ),
  mutant(
    "hotswap: the old instance is released under its users",
    "Managed/hotswap.ts",
    "exit === undefined || users > 0",
    "exit === undefined",
    "Managed.hotswap"
  ),
  mutant(
    "hotswap: the last user leaves the old instance open",
    "Managed/hotswap.ts",
    "--instance.users === 0 ? this.settle(instance) : Effect.void",
    "instance.users-- < 0 ? this.settle(instance) : Effect.void",
    "Managed.hotswap"
  ),
  mutant(
    "hotswap: an instance is live one step late",
    "Managed/hotswap.ts",
    "Effect.matchCauseEffect(next.openInMask(restore, site), {",
    "Effect.matchCauseEffect(Effect.zipLeft(next.openInMask(restore, site), restore(Effect.yieldNow())), {",
    "Managed.hotswap"
  ),
  mutant(
    "a release runs in the interrupted fiber and can be cut",
    "internal/deadline.ts",
    "  Effect.uninterruptible(\n    Effect.withFiberRuntime((caller",
    "  Effect.map(Effect.exit(Effect.interruptible(effect)), Either.right) ?? Effect.uninterruptible(\n    Effect.withFiberRuntime((caller",
    "Managed.use, a release with a deadline"
  ),
  mutant(
    "a release that waits is not waited for",
    "internal/deadline.ts",
    "      const ended = fiber.unsafePoll()",
    "      const ended = fiber.unsafePoll() ?? { _tag: \"Success\", value: undefined } as never",
    "Managed.use, a release that hangs"
  ),
  mutant(
    "a release that waits has no timer",
    "internal/deadline.ts",
    "        clock.sleep(wait),",
    "        Effect.never,",
    "Managed.use, a release that hangs"
  ),
  mutant(
    "a release without a deadline has none in a shutdown either",
    "internal/deadline.ts",
    "now() + 0.8 * (by - now())",
    "Infinity",
    "Shutdown.run, a release that hangs without a deadline"
  ),
  mutant(
    "any release is taken for one that cannot wait",
    "internal/runtime.ts",
    "  return op === \"Success\"",
    "  return op !== undefined || op === \"Success\"",
    "Managed.use, a release that hangs"
  ),
  // Parallel, Batch.
  mutant(
    "an interrupted caller leaves its workers behind",
    "internal/workers.ts",
    "        if (Exit.isFailure(waited)) {\n          group.stopped = true",
    "        if (Exit.isFailure(waited)) {\n          if (true) return yield* Effect.failCause(waited.cause)\n          group.stopped = true",
    "Parallel.forEach",
    "Batch.run"
  ),
  mutant(
    "the first failure does not wait for the others",
    "internal/workers.ts",
    "    group.alive--\n",
    "    group.alive -= Exit.isFailure(exit) ? group.alive : 1\n",
    "Parallel.all, one fails",
    "Parallel.forEach",
    "Parallel.race"
  ),
  withoutMask(
    "forking and watching are not one step",
    "internal/workers.ts",
    "(restore) =>\n    Effect.transplant((graft) =>",
    "Parallel.forEach"
  ),
  withoutMask(
    "Managed in a scope without its mask",
    "Managed/resource.ts",
    "(restore) =>\n    Effect.flatMap(Effect.scope",
    "Managed in a scope"
  ),
  mutant(
    "an interrupted caller does not cut its workers",
    "internal/workers.ts",
    "          cut(group)\n          yield* awaitEnd(group)",
    "          yield* awaitEnd(group)",
    "Parallel.forEach",
    "Parallel.all"
  ),
  mutant(
    "an interrupted caller does not wait for its workers",
    "internal/workers.ts",
    "          cut(group)\n          yield* awaitEnd(group)",
    "          cut(group)",
    "Parallel.forEach",
    "Parallel.race"
  ),
  mutant(
    "a suspended item is dropped when its round fails",
    "Parallel.ts",
    "abandon([...suspended, ...unstarted])",
    "abandon([...unstarted])",
    "Parallel.forEach, batching"
  ),
  mutant(
    "a suspended item that has not resumed is dropped when its round fails",
    "Parallel.ts",
    "abandon([...suspended, ...unstarted])",
    "abandon([...suspended])",
    "Parallel.forEach, batching"
  ),
  // Pool.
  withoutMask(
    "Pool.use without its mask",
    "Pool/use.ts",
    "(restore): Effect.Effect<any, E | E2, R2> => {",
    "Pool.use"
  ),
  mutant(
    "an item that one step takes is not given back",
    "Pool/use.ts",
    "        pushFrame(fiber, item.frame ??= new Frame(() => Lend.giveBack(item, Exit.void)))\n",
    "",
    "Pool.use"
  ),
  mutant(
    "the wait for an item is restored as a whole, grant and all",
    "Pool/use.ts",
    ": Effect.flatMap(taking, (item) => runInMask(",
    ": Effect.flatMap(restore(taking), (item) => runInMask(",
    "Pool.use"
  ),
  mutant(
    "an item is registered with its scope one step late",
    "Pool/use.ts",
    "Effect.flatMap(taking, (item) => own(",
    "Effect.flatMap(Effect.zipLeft(taking, restore(Effect.yieldNow())), (item) => own(",
    "Pool.get"
  ),
  // Exit stacks.
  withoutMask(
    "a body without its mask leaves what it entered",
    "ExitStack.ts",
    "(restore) => {\n    const stack",
    "ExitStack.use"
  ),
  withoutMask(
    "an interrupted close loses the rest",
    "ExitStack/stack.ts",
    "(restore) =>\n      this.isEnding",
    "ExitStack.popAll",
    "ExitStack.make"
  ),
  withoutMask(
    "acquire and registration are two steps",
    "ExitStack/stack.ts",
    "(restore) => {\n      if (this.refusing)",
    "ExitStack.use"
  ),
  mutant(
    "a close does not wait for what is being acquired",
    "ExitStack/stack.ts",
    "    return this.entering.length === 0\n      ? this.unwind(exit)",
    "    return true\n      ? this.unwind(exit)",
    "ExitStack.enter beside"
  ),
  mutant(
    "nobody tells the close that the last acquire has ended",
    "ExitStack/stack.ts",
    "    if (this.entering.length === 0) this.wake?.()\n",
    "",
    "ExitStack.use, children that hang"
  ),
  mutant(
    "an acquire that fails stays in flight for ever",
    "ExitStack/stack.ts",
    "        onFailure: (cause) => {\n          this.leave(entering)\n",
    "        onFailure: (cause) => {\n",
    "ExitStack.enter beside"
  ),
  mutant(
    "what comes too late has left before it is given back",
    "ExitStack/stack.ts",
    "    return Effect.onExit(\n      this.failed(refused, [...steps]),",
    "    this.leave(entering)\n    return Effect.onExit(\n      this.failed(refused, [...steps]),",
    "ExitStack.enter beside"
  ),
  mutant(
    "what is handed over stays with its old owner too",
    "ExitStack/stack.ts",
    "        successor.steps = this.steps\n        this.steps = []",
    "        successor.steps = [...this.steps]",
    "ExitStack.popAll"
  ),
  mutant(
    "what is handed over belongs to no scope",
    "ExitStack/stack.ts",
    "return Effect.flatMap(successor.belongTo(scope), () => {",
    "return Effect.flatMap(Effect.void, () => {",
    "ExitStack.popAll"
  ),
  mutant(
    "everything moves before the heir has an owner",
    "ExitStack/stack.ts",
    "      return Effect.flatMap(successor.belongTo(scope), () => {\n        if (this.refusing) return this.refused(\"popAll\")",
    "      successor.steps = this.steps\n      this.steps = []\n      return Effect.flatMap(successor.belongTo(scope), () => {\n        return Effect.succeed(successor)",
    "ExitStack.popAll",
    "ExitStack.moveTo"
  ),
  mutant(
    "a closed stack still lets in",
    "ExitStack/stack.ts",
    "    this.isEnding = true\n    this.refusing = true",
    "    this.isEnding = true",
    "ExitStack.enter after"
  ),
  mutant(
    "enterAll leaves what it opened when one fails",
    "ExitStack/stack.ts",
    "onFailure: (cause) => group.failed(cause, group.steps)",
    "onFailure: (cause) => Effect.failCause(cause)",
    "ExitStack.enterAll"
  ),
  mutant(
    "a scoped effect that fails keeps what it had",
    "Managed/resource.ts",
    "giveUp(cause, Scope.close(scope, Exit.failCause(cause)), {",
    "giveUp(cause, Effect.void, {",
    "ExitStack.use, entering"
  ),
  mutant(
    "who joins misses an end that has come",
    "ExitStack/stack.ts",
    "    if (this.final !== undefined) return Effect.succeed(this.final)\n",
    "",
    "ExitStack.popAll",
    "ExitStack.close"
  ),
  mutant(
    "nobody tells those who joined",
    "ExitStack/stack.ts",
    "      if (this.joined !== undefined) Deferred.unsafeDone(this.joined, Exit.succeed(final))\n",
    "",
    "ExitStack.close"
  ),
  mutant(
    "an acquire that closes its stack waits for itself",
    "ExitStack/stack.ts",
    "    if (this.entering.length > 0) this.stopAwaitingBy(waitingForThis())\n",
    "",
    "ExitStack.close, by what is acquired"
  ),
  mutant(
    "an acquire that closes what is closing waits for itself",
    "ExitStack/stack.ts",
    "    this.stopAwaitingBy(fibers)\n",
    "",
    "ExitStack.close, by what is acquired"
  ),
  mutant(
    "a release that closes its stack waits for itself",
    "ExitStack/stack.ts",
    "    if (this.isReleasedBy(fibers)) return Effect.succeed(exit)\n",
    "",
    "ExitStack.close, by its own release"
  ),
  mutant(
    "an end waits for ever for an acquire that hangs",
    "ExitStack/stack.ts",
    "    return Effect.flatMap(outcomeWithin(work, enterDeadline), (outcome) => {",
    "    return Effect.flatMap(Effect.map(Effect.exit(work), Either.right), (outcome) => {",
    "ExitStack.use, hung for ever"
  ),
  mutant(
    "what the owner's children acquire is waited for, not cut",
    "ExitStack/stack.ts",
    "if (fiber !== undefined && mayBeCut.has(fiber)) ",
    "if (false) ",
    "ExitStack.use, children that hang"
  ),
  mutant(
    "what comes after the end has gone on stays",
    "ExitStack/stack.ts",
    "          if (this.refusing) return this.tooLate(what, steps, entering)\n",
    "",
    "ExitStack.use, an acquire that outlasts it"
  )
]
