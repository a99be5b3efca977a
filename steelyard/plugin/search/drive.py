"""Drives a plan: asks its questions of an index, at once where they come together."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from steelyard.errors import EngineError
from steelyard.plugin.deadline import Deadline
from steelyard.plugin.search.calls import Call

T = TypeVar("T")


def drive(
    plan: Generator[Sequence[Call], Sequence[Any], T],
    index: Any,
    threads: ThreadPoolExecutor,
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


def _ask(
    calls: Sequence[Call], index: Any, threads: ThreadPoolExecutor, deadline: Deadline
) -> list[Any]:
    if deadline.seconds is None:
        # One of them is asked by this thread, which would only wait.
        later = [threads.submit(_ask_one, call, index, None) for call in calls[1:]]
        first = _ask_one(calls[0], index, None)
        return [first, *(future.result() for future in later)]
    futures: list[Future[Any]] = []
    for call in calls:
        left = deadline.left(call.share)
        futures.append(threads.submit(_ask_one, call, index, left))
    wait(futures, deadline.left(max(call.share for call in calls)))
    return [
        future.result() if future.done() else deadline.missed(call.name)
        for call, future in zip(calls, futures, strict=True)
    ]


def _ask_one(call: Call, index: Any, timeout: float | None) -> Any:
    try:
        return call.on(index, timeout)
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
