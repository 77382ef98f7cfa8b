"""The scenarios of test/ExitStack.parity.test.ts on Python's own AsyncExitStack. Prints {scenario: {log, end}} as JSON.

A failure is written as the failures it is made of, the first to happen first: "boom + bad" is `bad` raised while `boom` was
being handled. `end` is "ok <value>" or such a failure.
"""
import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager

scenarios = {}


def scenario(f):
    scenarios[f.__name__] = f
    return f


class Fail(Exception):
    pass


def text(e):
    if isinstance(e, asyncio.CancelledError):
        return "cancelled"
    if isinstance(e, TypeError):
        return "TypeError"
    return str(e)


def chain(e):
    parts = []
    while e is not None and len(parts) < 20:
        parts.append(text(e))
        e = e.__cause__ if e.__cause__ is not None or e.__suppress_context__ else e.__context__
    return " + ".join(reversed(parts))


def seen(e):
    return "ok" if e is None else chain(e)


class Resource:
    """Logs when it comes and goes; `on_exit` may suppress (True) or raise."""

    def __init__(self, log, name, on_exit=None):
        self.log, self.name, self.on_exit = log, name, on_exit

    async def __aenter__(self):
        self.log.append(f"+{self.name}")
        return self.name

    async def __aexit__(self, kind, e, trace):
        self.log.append(f"-{self.name} {seen(e)}")
        if self.on_exit is not None:
            return await self.on_exit(e)


def looks(log, name):
    async def handler(kind, e, trace):
        log.append(f"{name} {seen(e)}")

    return handler


def raises(message):
    async def handler(kind, e, trace):
        raise Fail(message)

    return handler


async def suppresses(kind, e, trace):
    return True


def callback(log, name):
    async def f():
        log.append(name)

    return f


async def fails(message):
    raise Fail(message)


async def cancelled_while(run):
    """Cancels it at its first wait and gives how it ended."""
    task = asyncio.ensure_future(run())
    await asyncio.sleep(0.01)
    task.cancel()
    try:
        return f"ok {await task}"
    except BaseException as e:
        return chain(e)


# Order, and what is seen.


@scenario
async def last_in_first_out(log):
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Resource(log, "a"))
        stack.push_async_exit(looks(log, "b"))
        await stack.enter_async_context(Resource(log, "c"))
        stack.push_async_callback(callback(log, "d"))
        return 1


@scenario
async def a_failure_is_seen(log):
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Resource(log, "a"))
        stack.push_async_exit(looks(log, "b"))
        raise Fail("boom")


@scenario
async def the_value_of_what_is_entered(log):
    async with AsyncExitStack() as stack:
        return await stack.enter_async_context(Resource(log, "a"))


@scenario
async def an_empty_stack(log):
    async with AsyncExitStack():
        raise Fail("boom")


@scenario
async def a_callback_has_its_arguments(log):
    async def f(*args, **kwargs):
        log.append(f"{args[0]} {kwargs['k']}")

    async with AsyncExitStack() as stack:
        stack.push_async_callback(f, 1, k=2)


@scenario
async def a_callback_cannot_suppress(log):
    async def f():
        return True

    async with AsyncExitStack() as stack:
        stack.push_async_exit(looks(log, "a"))
        stack.push_async_callback(f)
        raise Fail("boom")


# Suppressing and translating.


@scenario
async def a_handler_suppresses(log):
    async with AsyncExitStack() as stack:
        stack.push_async_exit(looks(log, "outer"))
        stack.push_async_exit(suppresses)
        stack.push_async_exit(looks(log, "inner"))
        raise Fail("boom")
    return "after"


@scenario
async def a_resource_suppresses(log):
    async def on_exit(e):
        return True

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Resource(log, "outer"))
        await stack.enter_async_context(Resource(log, "r", on_exit))
        raise Fail("boom")
    return "after"


@scenario
async def suppressing_a_success_changes_nothing(log):
    async with AsyncExitStack() as stack:
        stack.push_async_exit(suppresses)
        return "value"


@scenario
async def a_handler_translates(log):
    async def translate(kind, e, trace):
        raise Fail("other") from None

    async with AsyncExitStack() as stack:
        stack.push_async_exit(looks(log, "outer"))
        stack.push_async_exit(translate)
        raise Fail("boom")


@scenario
async def a_translation_is_suppressed(log):
    async def translate(kind, e, trace):
        raise Fail("other") from None

    async with AsyncExitStack() as stack:
        stack.push_async_exit(suppresses)
        stack.push_async_exit(looks(log, "middle"))
        stack.push_async_exit(translate)
        raise Fail("boom")
    return "after"


@scenario
async def the_same_failure_given_back(log):
    async def again(kind, e, trace):
        raise e

    async with AsyncExitStack() as stack:
        stack.push_async_exit(looks(log, "outer"))
        stack.push_async_exit(again)
        raise Fail("boom")


# Failing.


@scenario
async def a_handler_fails(log):
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Resource(log, "a"))
        stack.push_async_exit(looks(log, "outer"))
        stack.push_async_exit(raises("bad"))
        stack.push_async_exit(looks(log, "inner"))
        raise Fail("boom")


@scenario
async def a_handler_fails_after_a_success(log):
    async with AsyncExitStack() as stack:
        stack.push_async_exit(looks(log, "outer"))
        stack.push_async_exit(raises("bad"))
        return 1


@scenario
async def the_body_and_two_handlers_fail(log):
    async with AsyncExitStack() as stack:
        stack.push_async_exit(looks(log, "outer"))
        stack.push_async_exit(raises("worse"))
        stack.push_async_exit(raises("bad"))
        raise Fail("boom")


@scenario
async def a_failing_handler_is_suppressed(log):
    async with AsyncExitStack() as stack:
        stack.push_async_exit(suppresses)
        stack.push_async_exit(raises("bad"))
        raise Fail("boom")
    return "after"


@scenario
async def one_suppresses_and_one_fails(log):
    async with AsyncExitStack() as stack:
        stack.push_async_exit(looks(log, "outer"))
        stack.push_async_exit(raises("bad"))
        stack.push_async_exit(suppresses)
        raise Fail("boom")


@scenario
async def a_callback_fails(log):
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Resource(log, "a"))
        stack.push_async_callback(fails, "bad")
        raise Fail("boom")


@scenario
async def a_release_fails(log):
    async def on_exit(e):
        raise Fail("bad")

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Resource(log, "a"))
        await stack.enter_async_context(Resource(log, "b", on_exit))
        raise Fail("boom")


@scenario
async def a_handler_throws_before_it_is_async(log):
    def handler(kind, e, trace):
        raise Fail("thrown")

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Resource(log, "a"))
        stack.push_async_exit(handler)


@scenario
async def entering_fails_midway(log):
    class Bad:
        async def __aenter__(self):
            raise Fail("no")

        async def __aexit__(self, kind, e, trace):
            log.append("-bad")

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Resource(log, "a"))
        await stack.enter_async_context(Bad())
        await stack.enter_async_context(Resource(log, "b"))


@scenario
async def entering_fails_and_the_body_goes_on(log):
    class Bad:
        async def __aenter__(self):
            raise Fail("no")

        async def __aexit__(self, kind, e, trace):
            log.append("-bad")

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Resource(log, "a"))
        try:
            await stack.enter_async_context(Bad())
        except Fail as e:
            log.append(f"caught {text(e)}")
        await stack.enter_async_context(Resource(log, "b"))
        return "fine"


@scenario
async def entering_what_is_no_resource(log):
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Resource(log, "a"))
        await stack.enter_async_context(1)


@scenario
async def pushing_what_is_no_handler(log):
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Resource(log, "a"))
        stack.push_async_exit(1)
        log.append("pushed")


# Nesting.


@scenario
async def nested_stacks(log):
    async with AsyncExitStack() as outer:
        await outer.enter_async_context(Resource(log, "outer"))
        async with AsyncExitStack() as inner:
            await inner.enter_async_context(Resource(log, "inner"))
            raise Fail("boom")


@scenario
async def the_inner_stack_suppresses(log):
    async with AsyncExitStack() as outer:
        await outer.enter_async_context(Resource(log, "outer"))
        async with AsyncExitStack() as inner:
            inner.push_async_exit(suppresses)
            raise Fail("boom")
        log.append("went on")
        return 2


@scenario
async def a_stack_on_a_stack(log):
    async with AsyncExitStack() as outer:
        inner = AsyncExitStack()
        outer.push_async_exit(looks(log, "outer"))
        outer.push_async_exit(inner)
        inner.push_async_exit(suppresses)
        await inner.enter_async_context(Resource(log, "a"))
        raise Fail("boom")
    return "after"


# Moving and closing.


@scenario
async def pop_all_keeps_everything(log):
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Resource(log, "a"))
        stack.push_async_exit(looks(log, "b"))
        kept = stack.pop_all()
        log.append("moved")
    log.append("left")
    await kept.aclose()


@scenario
async def pop_all_then_the_body_fails(log):
    kept = None
    try:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(Resource(log, "a"))
            kept = stack.pop_all()
            raise Fail("boom")
    except Fail as e:
        log.append(f"caught {text(e)}")
    await kept.aclose()


@scenario
async def what_was_popped_is_unwound_with_a_failure(log):
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Resource(log, "a"))
        kept = stack.pop_all()
    async with kept:
        await kept.enter_async_context(Resource(log, "b"))
        raise Fail("boom")


@scenario
async def pop_all_of_nothing(log):
    async with AsyncExitStack() as stack:
        await stack.pop_all().aclose()
        return 1


@scenario
async def close_twice(log):
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Resource(log, "a"))
        await stack.aclose()
        log.append("closed")
        await stack.aclose()


@scenario
async def closed_in_the_body_then_it_fails(log):
    async with AsyncExitStack() as stack:
        stack.push_async_exit(suppresses)
        await stack.enter_async_context(Resource(log, "a"))
        await stack.aclose()
        raise Fail("boom")


@scenario
async def a_close_that_fails(log):
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Resource(log, "a"))
        stack.push_async_callback(fails, "bad")
        try:
            await stack.aclose()
        except Fail as e:
            log.append(f"caught {chain(e)}")
        return "fine"


# Generators.


def generated(f):
    return asynccontextmanager(f)


@scenario
async def a_generator(log):
    @generated
    async def g():
        log.append("open")
        try:
            yield "value"
        finally:
            log.append("close")

    async with AsyncExitStack() as stack:
        return await stack.enter_async_context(g())


@scenario
async def a_generator_cleans_up_after_a_failure(log):
    @generated
    async def g():
        try:
            yield
        finally:
            log.append("close")

    async with AsyncExitStack() as stack:
        stack.push_async_exit(looks(log, "outer"))
        await stack.enter_async_context(g())
        raise Fail("boom")


@scenario
async def a_generator_swallows(log):
    @generated
    async def g():
        try:
            yield
        except Fail as e:
            log.append(f"swallowed {text(e)}")

    async with AsyncExitStack() as stack:
        stack.push_async_exit(looks(log, "outer"))
        await stack.enter_async_context(g())
        raise Fail("boom")
    return "after"


@scenario
async def a_generator_throws_again(log):
    @generated
    async def g():
        try:
            yield
        except Fail as e:
            log.append(f"saw {text(e)}")
            raise

    async with AsyncExitStack() as stack:
        stack.push_async_exit(looks(log, "outer"))
        await stack.enter_async_context(g())
        raise Fail("boom")


@scenario
async def a_generator_translates(log):
    @generated
    async def g():
        try:
            yield
        except Fail:
            raise Fail("other") from None

    async with AsyncExitStack() as stack:
        stack.push_async_exit(looks(log, "outer"))
        await stack.enter_async_context(g())
        raise Fail("boom")


@scenario
async def a_generator_fails_while_it_cleans_up(log):
    @generated
    async def g():
        try:
            yield
        finally:
            raise Fail("bad")

    async with AsyncExitStack() as stack:
        stack.push_async_exit(looks(log, "outer"))
        await stack.enter_async_context(g())
        raise Fail("boom")


@scenario
async def a_generator_fails_after_a_success(log):
    @generated
    async def g():
        yield
        raise Fail("bad")

    async with AsyncExitStack() as stack:
        stack.push_async_exit(looks(log, "outer"))
        await stack.enter_async_context(g())
        return 1


@scenario
async def a_generator_fails_before_it_yields(log):
    @generated
    async def g():
        if log is not None:
            raise Fail("no")
        yield

    async with AsyncExitStack() as stack:
        stack.push_async_exit(looks(log, "outer"))
        await stack.enter_async_context(g())


@scenario
async def a_generator_does_not_yield(log):
    @generated
    async def g():
        if log is None:
            yield

    async with AsyncExitStack() as stack:
        stack.push_async_exit(looks(log, "outer"))
        await stack.enter_async_context(g())


@scenario
async def a_generator_yields_twice(log):
    @generated
    async def g():
        yield
        yield

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Resource(log, "a"))
        await stack.enter_async_context(g())


# Cancellation.


@scenario
async def cancellation_is_seen(log):
    async def run():
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(Resource(log, "a"))
            stack.push_async_exit(looks(log, "b"))
            await asyncio.sleep(60)

    return await cancelled_while(run)


@scenario
async def a_handler_fails_while_cancelled(log):
    async def run():
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(Resource(log, "a"))
            stack.push_async_exit(raises("bad"))
            await asyncio.sleep(60)

    return await cancelled_while(run)


@scenario
async def cancellation_is_suppressed(log):
    async def run():
        async with AsyncExitStack() as stack:
            stack.push_async_exit(looks(log, "outer"))
            stack.push_async_exit(suppresses)
            await asyncio.sleep(60)
        log.append("went on")

    return await cancelled_while(run)


@scenario
async def cancelled_while_it_enters(log):
    class Slow:
        async def __aenter__(self):
            log.append("+slow")
            await asyncio.sleep(0.05)

        async def __aexit__(self, kind, e, trace):
            log.append("-slow")

    async def run():
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(Slow())

    return await cancelled_while(run)


@scenario
async def cancelled_while_it_releases(log):
    async def on_exit(e):
        await asyncio.sleep(0.05)
        log.append("released")

    async def run():
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(Resource(log, "a"))
            await stack.enter_async_context(Resource(log, "slow", on_exit))

    return await cancelled_while(run)


# Where ours is meant to differ.


@scenario
async def which_failure_is_caught(log):
    class Other(Exception):
        pass

    async def handler(kind, e, trace):
        raise Other("bad")

    try:
        async with AsyncExitStack() as stack:
            stack.push_async_exit(handler)
            raise Fail("boom")
    except Fail as e:
        return f"caught {text(e)}"
    except Other as e:
        return f"caught {text(e)}"


@scenario
async def used_after_pop_all(log):
    async with AsyncExitStack() as stack:
        kept = stack.pop_all()
        await stack.enter_async_context(Resource(log, "late"))
        log.append("entered")
    await kept.aclose()


@scenario
async def used_after_close(log):
    stack = AsyncExitStack()
    await stack.aclose()
    await stack.enter_async_context(Resource(log, "late"))
    log.append("entered")


@scenario
async def pushed_while_it_unwinds(log):
    async with AsyncExitStack() as stack:
        async def handler(kind, e, trace):
            stack.push_async_callback(callback(log, "late"))

        stack.push_async_exit(handler)


@scenario
async def two_close_at_once(log):
    async def on_exit(e):
        await asyncio.sleep(0.02)
        log.append("released")

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Resource(log, "a", on_exit))

        async def close(name):
            await stack.aclose()
            log.append(f"{name} returned")

        await asyncio.gather(close("first"), close("second"))


@scenario
async def pop_all_and_nobody_closes_it(log):
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Resource(log, "a"))
        stack.pop_all()
    log.append("left")


@scenario
async def a_handler_closes_its_stack(log):
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Resource(log, "a"))

        async def handler(kind, e, trace):
            await stack.aclose()
            log.append("closed")

        stack.push_async_exit(handler)
        raise Fail("boom")


@scenario
async def what_is_entered_closes_its_stack(log):
    async with AsyncExitStack() as stack:
        class Closing(Resource):
            async def __aenter__(self):
                await stack.aclose()
                return await super().__aenter__()

        await stack.enter_async_context(Resource(log, "a"))
        await stack.enter_async_context(Closing(log, "closing"))
        log.append("entered")


async def run(f):
    log = []
    try:
        value = await f(log)
        end = "ok" if value is None else f"ok {value}"
    except BaseException as e:
        end = chain(e)
    return {"log": log, "end": end}


async def main():
    print(json.dumps({name: await run(f) for name, f in scenarios.items()}))


asyncio.run(main())
