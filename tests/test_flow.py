"""Stages end together: no full or empty channel keeps one waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from steelyard.errors import InputError
from steelyard.indexer.flow import Channel, Flow, StoppedError

GRACE = 30.0


def until(event: threading.Event) -> None:
    event.wait()


def nobody() -> None:
    return None


def joined(
    flow: Flow, wanted: Callable[[], BaseException | None] = nobody
) -> BaseException | None:
    """What a flow ends with, in time."""
    ended: list[BaseException | None] = []

    def wait() -> None:
        try:
            flow.join(wanted, GRACE)
        except BaseException as error:
            ended.append(error)
        else:
            ended.append(None)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    thread.join(GRACE)
    assert ended, "the stages hang"
    return ended[0]


def test_items_arrive_in_order_and_the_channel_is_bounded() -> None:
    flow: Flow = Flow()
    channel: Channel[int] = Channel(flow, capacity=2)
    waiting: list[int] = []
    got: list[int] = []

    def produce() -> None:
        for i in range(50):
            channel.put(i)
            waiting.append(len(channel))
        channel.close()

    flow.start("produce", produce)
    flow.start("consume", lambda: got.extend(channel))
    assert joined(flow) is None
    assert got == list(range(50))
    assert max(waiting) <= 2


@pytest.mark.parametrize("failing", ["first", "middle", "last"])
def test_a_stage_that_fails_ends_the_others(failing: str) -> None:
    flow = Flow()
    first: Channel[int] = Channel(flow)
    second: Channel[int] = Channel(flow)

    def produce() -> None:
        i = 0
        while True:  # it never ends by itself: it waits at the full channel
            if failing == "first" and i == 3:
                raise InputError("first")
            first.put(i)
            i += 1

    def pass_on() -> None:
        for item in first:
            if failing == "middle" and item == 3:
                raise InputError("middle")
            second.put(item)

    def consume() -> None:
        for item in second:
            if failing == "last" and item == 3:
                raise InputError("last")

    for name, stage in (("a", produce), ("b", pass_on), ("c", consume)):
        flow.start(name, stage)
    error = joined(flow)
    assert isinstance(error, InputError)
    assert error.message == failing


def test_the_user_stops_it_while_it_waits() -> None:
    flow = Flow()
    channel: Channel[int] = Channel(flow)
    flow.start("waits", lambda: [None for _ in channel].clear())
    flow.start("sleeps", lambda: flow.wait(3600))
    assert isinstance(joined(flow, lambda: KeyboardInterrupt()), KeyboardInterrupt)
    with pytest.raises(StoppedError):
        flow.check()


def test_a_stage_that_hangs_is_left_behind() -> None:
    flow = Flow()
    never = threading.Event()
    flow.start("hangs", lambda: until(never))
    flow.stop(InputError("enough"))
    with pytest.raises(InputError, match="enough"):
        flow.join(nobody, grace=0.1)
    never.set()
