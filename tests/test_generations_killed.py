"""Switch, rollback, gc and abort, killed at random moments and done again, under a reader."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from steelyard.indexer.generations.gc import sweep
from steelyard.indexer.generations.history import names, notes
from steelyard.indexer.generations.rollback import INTENT
from steelyard.indexer.generations.verify import sample_of, verify
from steelyard.plugin.packs import open_packs
from steelyard.plugin.searcher import Searcher
from steelyard.plugin.urls import open_engine
from tests.conftest import ROOT
from tests.generation_steps import DOCUMENTS, WORDS, Side, clean, named, number_of

pytest_plugins = ["tests.servers.opensearch", "tests.servers.milvus"]

KILLS = int(os.environ.get("STEELYARD_KILLS", "8"))
"""In each place; a soak sets more."""

SECONDS = float(os.environ.get("STEELYARD_READER_SECONDS", "15"))
"""How long the reader reads through re-indexes."""

RATE, K = 20, 10
PLACES = [
    pytest.param("opensearch", marks=pytest.mark.opensearch),
    pytest.param("pair", marks=[pytest.mark.opensearch, pytest.mark.milvus]),
]


@pytest.fixture(params=PLACES)
def side(request: pytest.FixtureRequest, tiny_pack: Path) -> Iterator[Side]:
    node: str = request.getfixturevalue("opensearch_url")
    url = f"opensearch://{urlsplit(node).netloc}/killed"
    if request.param == "pair":
        url = f"dense=milvus://{request.getfixturevalue('milvus_address')}/killed,sparse={url}"
    made = Side(url, tiny_pack)
    yield made
    clean(made, node)


@dataclass
class Reader:
    """Searches at a steady rate until it is stopped, and notes what is wrong."""

    url: str
    pack: Path
    searches: int = 0
    wrong: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    late: int = 0

    def __enter__(self) -> Reader:
        self._stop = threading.Event()
        self._searcher = Searcher(
            open_packs(self.pack), open_engine(self.url), resolve_every=1.0, candidates=20
        )
        self._searcher.search(WORDS[0], K)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._searcher.close()

    def _read(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due += 1 / RATE
            self.late += time.monotonic() > due
            self.searches += 1
            try:
                self._search(" ".join(random.sample(WORDS, 3)))
            except Exception as error:  # told by the test, which runs in another thread
                self.wrong.append(repr(error))

    def _search(self, text: str) -> None:
        answer = self._searcher.search(text, K)
        self.seen.add(answer.generation)
        number = int(answer.generation.rsplit("_", 1)[1], 16)
        numbers = {hit.document.metadata["number"] for hit in answer.hits if hit.document}
        if len(answer.hits) != K or answer.missing or answer.behind:
            self.wrong.append(f"{len(answer.hits)} hits, {answer.missing}, {answer.behind}")
        elif not numbers <= {number, 1000}:  # 1000 are live changes
            self.wrong.append(f"{answer.generation} gave documents of {numbers}")


class Doomed:
    """A command in a process, started and waiting for its word."""

    def __init__(self, side: Side, command: str, number: int) -> None:
        self.command, self.number = command, number
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.generation_steps", side.url, str(side.pack), command,
             str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.out = self.process.stdout

    def run_for(self, seconds: float) -> bool:
        """Let it go, and kill it after a while; whether it was done by then."""
        assert self.out.readline() == "ready\n"
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        time.sleep(seconds)  # the moment of its death
        self.process.kill()
        return "done" in self.process.communicate()[0]


def test_killed_at_any_moment_and_done_again(side: Side) -> None:
    pick = random.Random(5)  # noqa: S311
    side.switch(side.load(1))
    number, killed, longest = 1, 0, dict.fromkeys(("switch", "rollback", "gc", "abort"), 1.0)
    with Reader(side.url, side.pack) as reader:
        for turn in range(KILLS):
            command = list(longest)[turn % len(longest)]
            if command in ("switch", "abort"):
                number += 1
                side.load(number)
                side.upsert(f"live{number}", 1000)
            before = side.current()
            doomed = Doomed(side, command, number)
            was_done = doomed.run_for(pick.uniform(0.0, longest[command]))
            killed += not was_done
            whole(side)
            started = time.monotonic()
            # Killed after its last step, a rollback is done: the next one would go further back.
            was_done = was_done or (side.current() != before and not side.store.read(INTENT))
            if not (was_done and command == "rollback"):
                side.run(command, number)
            longest[command] = min(1.0, time.monotonic() - started)
            whole(side)
            check(side, command, number, before)
        assert not side.sweep(keep=0).failed
        assert side.numbers() == [side.current()]
    print(
        f"{killed} of {KILLS} commands were killed before they were done, "
        f"{reader.searches} searches meanwhile"
    )
    assert reader.wrong == []
    assert reader.searches > 0


def whole(side: Side) -> None:
    """What the alias stands for is all there, with the live changes up to its position."""
    current = side.engine.resolve()
    assert current is not None
    stored = side.stored(current)
    assert len([i for i in stored if i.startswith("d")]) == DOCUMENTS
    # Not what the alias says by now: a killed process's last request may still be on its way.
    assert {value for i, value in stored.items() if i.startswith("d")} == {number_of(current)}


def check(side: Side, command: str, number: int, before: int) -> None:
    """The command is done, once."""
    if command == "switch":
        assert side.current() == number
        assert f"live{number}" in side.stored(side.generation(number))
    elif command == "rollback":
        assert side.current() < before
        assert {f"live{n}" for n in range(2, number + 1)} <= set(
            side.stored(side.generation(side.current()))
        )
        # Forward again, for the commands to come.
        side.rollback(to=named(side, before))
    elif command == "gc":
        assert len(side.numbers()) <= 2
        assert names(side.store) == {named(side, each) for each in side.numbers()}
    else:
        assert number not in side.numbers()
        assert notes(side.store, named(side, number)) == {}
        assert side.current() == before


def test_a_reader_during_reindexes_with_rollback(side: Side) -> None:
    side.switch(side.load(1))
    number, rollbacks, dropped = 1, 0, 0
    with Reader(side.url, side.pack) as reader:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end or rollbacks == 0:
            number += 1
            generation, content = side.generation(number), side.content(number)
            side.engine.create(generation)
            side.engine.upsert(generation, content)
            side.upsert(f"live{number % 5}", 1000)
            side.engine.seal(generation)
            verify(side.engine.open(generation), DOCUMENTS, sample_of(content), 100.0)
            side.switch(generation)
            side.upsert(f"live{number % 5}", 1000)
            before = side.current()
            side.rollback()
            assert side.current() < before
            rollbacks += 1
            side.rollback(to=named(side, before))
            # The reader reads the alias every second: ten times that.
            dropped += len(sweep(side.engine, side.store, keep=1, grace=10.0).dropped)
    print(
        f"{reader.searches} searches at {RATE} a second during {number - 1} re-indexes and "
        f"{2 * rollbacks} rollbacks, {dropped} generations dropped: {len(reader.wrong)} failed or "
        f"empty; the reader was late {reader.late} times and saw {len(reader.seen)} generations"
    )
    assert reader.wrong == []
    assert reader.searches >= RATE
    assert len(reader.seen) > 1
