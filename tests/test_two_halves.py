"""Half of a look-up on another thread: the same vectors, and no trap."""

from __future__ import annotations

import multiprocessing
import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from steelyard.encoders.query import tables
from steelyard.encoders.query.tables import LookupTable, quantise_int8
from steelyard.encoders.query.tokenizer import TokenRows
from steelyard.encoders.query.two_halves import TwoHalves

ROWS, DIMS = 300, 24


@pytest.fixture
def halves(monkeypatch: pytest.MonkeyPatch) -> TwoHalves:
    two_processors(monkeypatch)
    return TwoHalves()


def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def some_tokens(count: int) -> TokenRows:
    generator = np.random.default_rng(7)
    lengths = generator.integers(0, 30, count)
    lengths[::5] = 0
    indptr = np.concatenate(([0], np.cumsum(lengths)))
    ids = generator.integers(0, ROWS, int(indptr[-1])).astype(np.int32)
    return TokenRows(ids, indptr, np.zeros(count, dtype=np.bool_))


def some_rows() -> NDArray[np.float32]:
    return np.random.default_rng(8).standard_normal((ROWS, DIMS)).astype(np.float32)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("count", [1, 2, 501])
def test_vectors_are_those_of_one_thread(
    monkeypatch: pytest.MonkeyPatch, dtype: str, count: int
) -> None:
    two_processors(monkeypatch)
    rows, tokens = some_rows(), some_tokens(count)
    scale: NDArray[np.float32] | None = None
    stored: NDArray[Any] = rows.astype(np.float16) if dtype == "float16" else rows
    if dtype == "int8":
        stored, scale = quantise_int8(rows)
    found = []
    for many in (0, 1 << 30):
        monkeypatch.setattr(tables, "_MANY_TOKENS", many)
        found.append(LookupTable(stored, scale).encode(tokens))
    np.testing.assert_array_equal(found[0], found[1])
    empty = np.diff(tokens.indptr) == 0
    assert not found[0][empty].any()
    np.testing.assert_allclose(np.linalg.norm(found[0][~empty], axis=1), 1, rtol=1e-5)


def test_the_second_half_is_on_a_thread_that_stays(halves: TwoHalves) -> None:
    on: list[int] = []
    for _ in range(3):
        halves.run(lambda: None, lambda: on.append(threading.get_ident()))
    assert len(set(on)) == 1
    assert on[0] != threading.get_ident()


@pytest.mark.parametrize(("processors", "told"), [(1, None), (None, None), (8, "1")])
def test_one_thread_is_enough_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, processors: int | None, told: str | None
) -> None:
    two_processors(monkeypatch)
    monkeypatch.setattr("os.cpu_count", lambda: processors)
    if told:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    on: list[int] = []
    TwoHalves().run(lambda: None, lambda: on.append(threading.get_ident()))
    assert on == [threading.get_ident()]


def test_both_run_at_the_same_time(halves: TwoHalves) -> None:
    barrier = threading.Barrier(2)
    halves.run(lambda: void(barrier.wait(60)), lambda: void(barrier.wait(60)))
    assert not barrier.broken


def test_who_finds_the_thread_taken_does_both_halves(halves: TwoHalves) -> None:
    on: list[int] = []
    halves.run(
        lambda: halves.run(
            lambda: on.append(threading.get_ident()), lambda: on.append(threading.get_ident())
        ),
        lambda: None,
    )
    assert on == [threading.get_ident()] * 2


def test_an_exception_of_either_half_is_raised(halves: TwoHalves) -> None:
    done: list[int] = []

    def fail() -> None:
        raise MemoryError("no room")

    for pair in ((fail, lambda: done.append(1)), (lambda: done.append(2), fail)):
        with pytest.raises(MemoryError, match="no room"):
            halves.run(*pair)
    halves.run(lambda: done.append(3), lambda: done.append(4))
    assert sorted(done) == [1, 2, 3, 4]


def test_a_forked_process_has_a_thread_of_its_own(halves: TwoHalves) -> None:
    halves.run(lambda: None, lambda: None)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()

    def in_child() -> None:
        halves.run(lambda: answers.put("first"), lambda: answers.put("second"))

    child = context.Process(target=in_child)
    child.start()
    assert sorted(answers.get(timeout=60) for _ in range(2)) == ["first", "second"]
    child.join(60)
    assert child.exitcode == 0


def void(_: int) -> None:
    """Nothing of it."""
