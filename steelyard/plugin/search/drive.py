"""Drives a plan: asks its questions of an index, at once where they come together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, wait
from typing import Any, Protocol, TypeVar

from steelyard.errors import EngineError
from steelyard.plugin.deadline import Deadline
from steelyard.plugin.search.calls import Call

T = TypeVar("T")


class Threads(Protocol):
    """Where questions are asked."""

    def submit(self, kind: str, ask: Callable[..., T], *arguments: Any) -> Future[T]:
        """Ask in a thread for this kind of question."""


def drive(
    plan: Generator[Sequence[Call], Sequence[Any], T],
    index: Any,
    threads: Threads,
    deadline: Deadline,
) -> T:
    """The plan's result over a ``SearchIndex``.

    Args:
        plan: just made.
        index: to ask.
        threads: questions that come together are asked here.
        deadline: what has not answered by then counts as failed.
    """
    try:
        calls = next(plan)
        while True:
            calls = plan.send(_ask(calls, index, threads, deadline))
    except StopIteration as done:
        result: T = done.value
        return result


async def drive_async(
    plan: Generator[Sequence[Call], Sequence[Any], T], index: Any, deadline: Deadline
) -> T:
    """The plan's result over an ``AsyncSearchIndex``: see ``drive``."""
    try:
        calls = next(plan)
        while True:
            asked = [_await_one(call, index, deadline) for call in calls]
            calls = plan.send(await asyncio.gather(*asked))
    except StopIteration as done:
        result: T = done.value
        return result


def _ask(calls: Sequence[Call], index: Any, threads: Threads, deadline: Deadline) -> list[Any]:
    if deadline.seconds is None:
        # One of them is asked by this thread, which would only wait.
        later = [threads.submit(call.name, _ask_one, call, index, deadline) for call in calls[1:]]
        first = _ask_one(calls[0], index, deadline)
        return [first, *(future.result() for future in later)]
    futures = []
    for call in calls:
        step = Deadline(deadline.left(call.share))
        futures.append(threads.submit(call.name, _ask_one, call, index, step))
    wait(futures, deadline.left(max(call.share for call in calls)))
    answers: list[Any] = []
    for call, future in zip(calls, futures, strict=True):
        if future.done():
            answers.append(future.result())
        else:
            future.cancel()  # one that has not begun never does
            answers.append(deadline.missed(call.name))
    return answers


def _ask_one(call: Call, index: Any, step: Deadline) -> Any:
    left = step.left()
    if left == 0:
        return step.missed(call.name)
    try:
        return call.on(index, left)
    except EngineError as error:
        return error


async def _await_one(call: Call, index: Any, deadline: Deadline) -> Any:
    left = deadline.left(call.share)
    try:
        return await asyncio.wait_for(call.on(index, left), left)
    except EngineError as error:
        return error
    except asyncio.TimeoutError:
        return deadline.missed(call.name)
