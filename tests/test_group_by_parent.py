"""The best passage of each document: exact with respect to the candidates."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import EngineError
from steelyard.plugin.async_searcher import AsyncSearcher
from steelyard.plugin.search.answer import Answer
from steelyard.plugin.searcher import Searcher
from steelyard.types import Document
from tests.memory_engine import MemoryEngine, encoded

WORDS = ("heavy", "light", "arm", "query", "document", "balance")
PARENTS = 12
PASSAGES = 15


def text(parent: int, passage: int) -> str:
    """More of 'heavy' in the passages of small parents, so that a few of them fill the top."""
    many = max(1, 12 - parent)
    return " ".join(["heavy"] * many + [WORDS[(parent + passage * i) % 6] for i in range(1, 5)])


@pytest.fixture
def memory(tiny_encoder: QueryEncoder) -> MemoryEngine:
    engine = MemoryEngine()
    documents = [
        Document(f"p{parent}#{n}", text(parent, n), f"title {parent}", f"p{parent}")
        for parent in range(PARENTS)
        for n in range(PASSAGES)
    ]
    documents.append(Document("whole", "light query", "", "whole"))
    engine.add(encoded(tiny_encoder, documents), tiny_encoder)
    return engine


@pytest.fixture
def searcher(memory: MemoryEngine, tiny_encoder: QueryEncoder) -> Iterator[Searcher]:
    with Searcher(tiny_encoder, memory, candidates=200) as opened:
        yield opened


def expected(searcher: Searcher, query: str, gone: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
    """The first passage of each parent in the whole ranking."""
    best: dict[str, str] = {}
    for hit in searcher.search(query, 181).hits:
        assert hit.document is not None
        if hit.id not in gone:
            best.setdefault(hit.document.parent_id, hit.id)
    return list(best.values())


def ids(answer: Answer) -> list[str]:
    return [hit.id for hit in answer.hits]


@pytest.mark.parametrize("query", ["heavy", "heavy arm", "light query", "balance document"])
def test_the_best_passage_of_each_parent_in_order(searcher: Searcher, query: str) -> None:
    want = expected(searcher, query)
    assert len(want) >= PARENTS
    answer = searcher.search(query, 5, group_by_parent=True)
    assert ids(answer) == want[:5]
    assert [hit.parent_id for hit in answer.hits] == [i.partition("#")[0] for i in want[:5]]
    assert all(hit.document and hit.document.id == hit.id for hit in answer.hits)
    assert ids(searcher.search(query, 4, offset=3, group_by_parent=True)) == want[3:7]
    assert ids(searcher.search(query, 100, group_by_parent=True)) == want


def test_it_is_off_by_default(searcher: Searcher) -> None:
    answer = searcher.search("heavy", 10)
    parents = [hit.parent_id for hit in answer.hits]
    assert len(set(parents)) < 10
    assert all(parents)


def test_documents_are_read_in_steps_and_no_further_than_needed(
    memory: MemoryEngine, searcher: Searcher
) -> None:
    searcher.search("heavy", 1, group_by_parent=True)
    memory.faults.calls.clear()
    searcher.search("heavy", 1, group_by_parent=True)
    assert memory.faults.calls.count("get") == 1
    memory.faults.calls.clear()
    searcher.search("heavy", 3, group_by_parent=True)
    assert memory.faults.calls.count("get") > 1


def test_explanations_and_hits_without_documents(searcher: Searcher) -> None:
    want = expected(searcher, "heavy arm")[:3]
    answer = searcher.search("heavy arm", 3, group_by_parent=True, explain=True)
    assert ids(answer) == want
    for hit in answer.hits:
        assert hit.explanation is not None
        assert sum(hit.explanation.arms.values()) == pytest.approx(hit.score)
    bare = searcher.search("heavy arm", 3, group_by_parent=True, documents=False)
    assert ids(bare) == want
    assert all(hit.document is None and hit.parent_id for hit in bare.hits)
    assert searcher.search("zzz", 3, group_by_parent=True).hits == []


def test_a_deleted_passage_gives_way_to_the_next_of_its_parent(
    memory: MemoryEngine, searcher: Searcher
) -> None:
    first = ids(searcher.search("heavy", 3, group_by_parent=True))
    want = expected(searcher, "heavy", {first[0]})
    memory.deleted.add(first[0])
    answer = searcher.search("heavy", 3, group_by_parent=True)
    assert ids(answer) == want[:3]
    assert first[0] not in ids(answer)


def test_documents_that_cannot_be_read(memory: MemoryEngine, tiny_encoder: QueryEncoder) -> None:
    memory.faults.failing.add("get")
    with (
        Searcher(tiny_encoder, memory, candidates=200) as strict,
        pytest.raises(EngineError, match="out of order"),
    ):
        strict.search("heavy", 3, group_by_parent=True)
    with Searcher(tiny_encoder, memory, candidates=200, on_engine_failure="degrade") as lenient:
        answer = lenient.search("heavy", 3, group_by_parent=True)
    assert set(answer.missing) == {"parents", "documents"}
    assert len(answer.hits) == 3


def test_the_asynchronous_searcher_gives_the_same(
    memory: MemoryEngine, searcher: Searcher, tiny_encoder: QueryEncoder
) -> None:
    async def ask() -> Answer:
        async with AsyncSearcher(tiny_encoder, memory, candidates=200) as opened:
            return await opened.search("heavy arm", 7, offset=1, group_by_parent=True)

    want = ids(searcher.search("heavy arm", 7, offset=1, group_by_parent=True))
    assert ids(asyncio.run(ask())) == want
