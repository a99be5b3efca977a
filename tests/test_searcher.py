"""The searcher's own logic: arms, policies, deadlines, packs by id, recency, explanations."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steelyard.encoders.pack.files import write_pack
from steelyard.encoders.pack.query_tokenizer import QueryTokenizer
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.encoders.query.tables import table_tensors
from steelyard.errors import EngineError, InputError, PackError, PackMismatchError
from steelyard.plugin.async_searcher import AsyncSearcher
from steelyard.plugin.fusion import Fusion
from steelyard.plugin.packs import open_packs
from steelyard.plugin.searcher import Recency, Searcher
from steelyard.types import Document
from tests.conftest import tiny_metadata, tiny_rows, tiny_weights
from tests.memory_engine import MemoryEngine, encoded

TEXTS = [
    "heavy document",
    "light query",
    "the heavy arm",
    "a light arm",
    "balance",
    "the balance arms",
    "heavy heavy light",
    "query the document",
]
DAY = 86_400


@pytest.fixture
def memory(tiny_encoder: QueryEncoder) -> MemoryEngine:
    engine = MemoryEngine()
    documents = [
        Document(f"d{i}", text, f"title {i}", metadata={} if i == 7 else {"day": i * DAY})
        for i, text in enumerate(TEXTS)
    ]
    engine.add(encoded(tiny_encoder, documents), tiny_encoder, fields={"day": "int"})
    return engine


@pytest.fixture
def searcher(memory: MemoryEngine, tiny_encoder: QueryEncoder) -> Iterator[Searcher]:
    with Searcher(tiny_encoder, memory, candidates=20) as opened:
        yield opened


def release(engine: MemoryEngine) -> None:
    for event in engine.faults.hanging.values():
        event.set()


def test_what_each_arm_said_adds_up_to_the_fused_score(searcher: Searcher) -> None:
    answer = searcher.search("heavy arm", 8, explain=True)
    assert len(answer.hits) == 8
    assert answer.encode_seconds <= answer.seconds
    for hit in answer.hits:
        why = hit.explanation
        assert why is not None
        assert why.fusion == "min-max"
        assert sum(why.arms.values()) == pytest.approx(hit.score)
        assert set(why.arms) == {a for a in ("dense", "sparse") if getattr(hit, a) is not None}
        if hit.sparse is not None:
            assert sum(term.score for term in why.sparse) == pytest.approx(hit.sparse.score)
            assert all(t.score == pytest.approx(t.query * (t.document or 0)) for t in why.sparse)
        assert hit.dense is not None
        assert sum(term.score for term in why.dense) == pytest.approx(hit.dense.score, abs=1e-6)
        assert {term.token for term in why.dense} == {"heavy", "arm"}
    assert searcher.search("heavy arm", 2).hits[0].explanation is None


def test_after_feedback_no_token_explains_the_dense_score(searcher: Searcher) -> None:
    hit = searcher.search("heavy arm", 1, explain=True, feedback=2).hits[0]
    assert hit.explanation is not None
    assert hit.explanation.dense == []
    assert hit.explanation.sparse != []


def test_one_arm_alone(memory: MemoryEngine, tiny_encoder: QueryEncoder) -> None:
    with Searcher(tiny_encoder, memory, candidates=20, arms=("sparse",)) as sparse:
        hits = sparse.search("heavy arm", 8).hits
        assert all(hit.dense is None and hit.sparse is not None for hit in hits)
        assert {hit.id for hit in hits} == {"d0", "d2", "d3", "d5", "d6"}
        with pytest.raises(InputError, match="refines the dense arm"):
            sparse.search("heavy", feedback=2)
        with pytest.raises(InputError, match="feedback by -1 documents"):
            sparse.search("heavy", feedback=-1)
    assert "dense" not in memory.faults.calls


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arms": ("dense", "both")}, "no arms 'dense, both'"),
        ({"arms": ()}, "no arms"),
        ({"arms": ("dense", "dense")}, "no arms"),
        ({"on_engine_failure": "ignore"}, "on_engine_failure is 'ignore'"),
        ({"deadline": 0.0}, "a deadline of 0.0 seconds"),
        ({"candidates": 0}, "0 candidates"),
        ({"fusion": "sum"}, "unknown fusion 'sum'"),
        ({"arms": ("match",), "fused_by_engine": True}, "dense and the sparse arm only"),
    ],
)
def test_settings_that_cannot_be(
    memory: MemoryEngine, tiny_encoder: QueryEncoder, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Searcher(tiny_encoder, memory, **settings)
    with pytest.raises(InputError, match=message):
        AsyncSearcher(tiny_encoder, memory, **settings)


def test_what_an_index_has_not_is_refused(
    memory: MemoryEngine, tiny_encoder: QueryEncoder
) -> None:
    with Searcher(tiny_encoder, memory, arms=("dense", "match")) as match:
        with pytest.raises(InputError, match="has no match arm") as caught:
            match.search("heavy")
        assert caught.value.hint == "it has: dense, sparse"
    with Searcher(tiny_encoder, memory, fused_by_engine=True) as fused:
        with pytest.raises(InputError, match="no fusion of its own"):
            fused.search("heavy")
        with pytest.raises(InputError, match="no highlights"):
            Searcher(tiny_encoder, memory).search("heavy", highlight=True)


def test_a_method_by_name_takes_the_packs_weights(
    memory: MemoryEngine, tiny_encoder: QueryEncoder
) -> None:
    with (
        Searcher(tiny_encoder, memory, candidates=20, fusion="rrf") as named,
        Searcher(tiny_encoder, memory, candidates=20, fusion=Fusion("rrf")) as given,
    ):
        assert named.search("heavy arm").hits == given.search("heavy arm").hits


@pytest.mark.parametrize("arm", ["dense", "sparse"])
def test_an_arm_that_fails(memory: MemoryEngine, tiny_encoder: QueryEncoder, arm: str) -> None:
    memory.faults.failing = {arm}
    with (
        Searcher(tiny_encoder, memory, candidates=20) as strict,
        pytest.raises(EngineError, match=f"{arm} is out of order"),
    ):
        strict.search("heavy arm")
    with Searcher(tiny_encoder, memory, candidates=20, on_engine_failure="degrade") as lenient:
        answer = lenient.search("heavy arm", feedback=2)
        assert set(answer.missing) == {arm}
        assert "out of order (repair it)" in answer.missing[arm]
        assert answer.hits
        assert all(getattr(hit, arm) is None for hit in answer.hits)
        memory.faults.failing = {"dense", "sparse"}
        with pytest.raises(EngineError, match="dense is out of order"):
            lenient.search("heavy arm")
        memory.faults.failing = set()
        assert lenient.search("heavy arm").missing == {}


def test_documents_or_feedback_that_fail(memory: MemoryEngine, tiny_encoder: QueryEncoder) -> None:
    memory.faults.failing = {"get"}
    with (
        Searcher(tiny_encoder, memory, candidates=20) as strict,
        pytest.raises(EngineError, match="get is out of order"),
    ):
        strict.search("heavy arm")
    with Searcher(tiny_encoder, memory, candidates=20, on_engine_failure="degrade") as lenient:
        answer = lenient.search("heavy arm", 3, feedback=2)
        assert set(answer.missing) == {"feedback", "documents"}
        assert [hit.document for hit in answer.hits] == [None] * 3
        assert lenient.search("heavy arm", 3, documents=False).missing == {}


def test_an_arm_that_hangs_ends_at_the_deadline(
    memory: MemoryEngine, tiny_encoder: QueryEncoder
) -> None:
    memory.faults.hanging = {"sparse": threading.Event()}
    settings: dict[str, Any] = {"candidates": 20, "deadline": 0.3}
    try:
        with (
            Searcher(tiny_encoder, memory, **settings) as strict,
            pytest.raises(
                EngineError,
                match=r"the sparse arm did not answer in time for a deadline of 0\.3 s",
            ),
        ):
            strict.search("heavy arm")
        with Searcher(tiny_encoder, memory, on_engine_failure="degrade", **settings) as lenient:
            answer = lenient.search("heavy arm", 3)
        assert set(answer.missing) == {"sparse"}
        assert all(hit.document is not None for hit in answer.hits)

        async def search() -> None:
            searcher = AsyncSearcher(tiny_encoder, memory, on_engine_failure="degrade", **settings)
            found = await searcher.search("heavy arm", 3, documents=False)
            assert set(found.missing) == {"sparse"}
            release(memory)
            await searcher.close()

        asyncio.run(search())
    finally:
        release(memory)


def test_an_arm_that_hangs_keeps_no_other_waiting(
    memory: MemoryEngine, tiny_encoder: QueryEncoder
) -> None:
    """More searches than the hanging arm has threads: the other arm answers all of them."""
    settings: dict[str, Any] = {"candidates": 20, "deadline": 1.5}
    with Searcher(tiny_encoder, memory, on_engine_failure="degrade", **settings) as lenient:
        lenient.search("heavy arm", 3)
        memory.faults.hanging = {"dense": threading.Event()}
        before = memory.faults.calls.count("dense")
        try:
            with ThreadPoolExecutor(60) as users:
                answers = list(users.map(lambda _: lenient.search("heavy arm", 3), range(60)))
        finally:
            release(memory)
    assert {tuple(answer.missing) for answer in answers} == {("dense",)}
    assert all(len(answer.hits) == 3 for answer in answers)
    # Those that had not begun when their time was over never did.
    assert memory.faults.calls.count("dense") - before <= 16


def test_an_alias_that_hangs_keeps_nobody_waiting(
    memory: MemoryEngine, tiny_encoder: QueryEncoder
) -> None:
    with Searcher(tiny_encoder, memory, candidates=20, deadline=0.5, resolve_every=0) as opened:
        first = opened.search("heavy arm", 3)
        memory.faults.hanging = {"resolve": threading.Event()}
        try:
            for _ in range(3):
                assert opened.search("heavy arm", 3).hits == first.hits
        finally:
            release(memory)
    fresh = MemoryEngine()
    fresh.faults.hanging = {"resolve": threading.Event()}
    try:
        with (
            Searcher(tiny_encoder, fresh, deadline=0.2) as opened,
            pytest.raises(EngineError, match="the alias 'demo' did not answer in time"),
        ):
            opened.search("heavy")
    finally:
        release(fresh)


def test_a_newer_generation_that_cannot_be_opened(
    memory: MemoryEngine, tiny_encoder: QueryEncoder
) -> None:
    documents = encoded(tiny_encoder, [Document("d0", "heavy")])

    async def by_tasks() -> tuple[Any, Any]:
        async with AsyncSearcher(tiny_encoder, memory, resolve_every=0) as tasks:
            first = await tasks.search("heavy", 3)
            newer = memory.add(documents, tiny_encoder)
            memory.broken = {newer.name}
            return first, await tasks.search("heavy", 3)

    with Searcher(tiny_encoder, memory, resolve_every=0) as opened:
        first = opened.search("heavy", 3)
        memory.broken = {memory.add(documents, tiny_encoder).name}
        stays = opened.search("heavy", 3)
        assert stays.hits == first.hits
        assert "cannot be opened" in stays.behind
        memory.broken = set()
        assert opened.search("heavy", 3).generation != first.generation
    before, after = asyncio.run(by_tasks())
    assert after.hits == before.hits
    assert "cannot be opened" in after.behind


def test_an_alias_that_fails_or_goes(memory: MemoryEngine, tiny_encoder: QueryEncoder) -> None:
    with Searcher(tiny_encoder, memory, candidates=20, resolve_every=0) as opened:
        first = opened.search("heavy arm", 3)
        memory.faults.failing = {"resolve"}
        assert opened.search("heavy arm", 3).hits == first.hits
        memory.faults.failing = set()
        memory._published = None
        with pytest.raises(EngineError, match="no index 'demo'"):
            opened.search("heavy arm")


def test_a_hit_that_is_not_stored_any_more_is_dropped(
    memory: MemoryEngine, searcher: Searcher
) -> None:
    ids = [hit.id for hit in searcher.search("heavy arm", 4).hits]
    memory.deleted = {ids[1]}
    assert [hit.id for hit in searcher.search("heavy arm", 4).hits] == [ids[0], *ids[2:]]
    assert searcher.search("heavy arm", 4, feedback=3).hits


def test_newer_documents_first(searcher: Searcher) -> None:
    plain = searcher.search("balance", 8)
    now = 8.0 * DAY
    decayed = searcher.search(
        "balance", 8, recency=Recency("day", 1.0, 1.0, now=now), explain=True
    )
    scores = {hit.id: hit.score for hit in plain.hits}
    for hit in decayed.hits:
        age = 0 if hit.id == "d7" else 8 - int(hit.id[1:])
        assert hit.score == pytest.approx(scores[hit.id] * 0.5**age)
        assert hit.explanation is not None
        assert hit.explanation.recency == pytest.approx(0.5**age)
    assert [h.score for h in decayed.hits] == sorted((h.score for h in decayed.hits), reverse=True)
    assert [h.id for h in decayed.hits] != [h.id for h in plain.hits]
    few = searcher.search("balance", 8, recency=Recency("day", 1.0, 1.0, now=now, window=2))
    assert {h.id for h in few.hits[:2]} == {h.id for h in plain.hits[:2]}
    assert [h.id for h in few.hits[2:]] == [h.id for h in plain.hits[2:]]


def test_recency_that_cannot_be(searcher: Searcher) -> None:
    with pytest.raises(InputError, match="'year', which is no declared metadata field"):
        searcher.search("balance", recency=Recency("year", 30))
    for half_life, weight in ((0.0, 0.5), (1.0, 2.0)):
        with pytest.raises(InputError, match="a recency of"):
            Recency("day", half_life, weight)


def test_tasks_get_what_threads_get(memory: MemoryEngine, tiny_encoder: QueryEncoder) -> None:
    options: list[dict[str, Any]] = [
        {},
        {"feedback": 2},
        {"k": 3, "offset": 2, "documents": False},
        {"explain": True, "recency": Recency("day", 3.0, now=1e6)},
    ]

    async def search() -> list[Any]:
        async with AsyncSearcher(tiny_encoder, memory, candidates=20) as searcher:
            texts = ["heavy arm", "", "balance", "nothing known: 🙂"]
            return await asyncio.gather(
                *(searcher.search(text, **more) for text in texts for more in options)
            )

    with Searcher(tiny_encoder, memory, candidates=20) as threads:
        expected = [
            threads.search(text, **more)
            for text in ("heavy arm", "", "balance", "nothing known: 🙂")
            for more in options
        ]
    for found, wanted in zip(asyncio.run(search()), expected, strict=True):
        assert found.hits == wanted.hits
        assert (found.generation, found.empty) == (wanted.generation, wanted.empty)


def test_an_unknown_setting_of_the_async_searcher(
    memory: MemoryEngine, tiny_encoder: QueryEncoder
) -> None:
    with pytest.raises(InputError, match="no search setting 'candidate'"):
        AsyncSearcher(tiny_encoder, memory, candidate=3)


def other_pack(folder: Path, tokenizer: QueryTokenizer, seed: int, **changes: Any) -> QueryEncoder:
    rows = np.random.default_rng(seed).permutation(tiny_rows(tokenizer.rows))
    metadata = tiny_metadata(tokenizer, name=f"pack{seed}", **changes)
    tensors = table_tensors(rows, "float32", "default")
    write_pack(folder, metadata, tokenizer.text, tensors, tiny_weights(tokenizer.rows))
    return QueryEncoder.load(folder)


def another_space(encoder: QueryEncoder) -> dict[str, Any]:
    spec = encoder.metadata.document_encoder
    return {"document_encoder": replace(spec, weights="1" * 64)}


def test_the_pack_follows_the_generation(tmp_path: Path, tiny_tokenizer: QueryTokenizer) -> None:
    packs = tmp_path / "packs"
    first = other_pack(packs / "a", tiny_tokenizer, 1)
    second = other_pack(tmp_path / "later", tiny_tokenizer, 2, **another_space(first))
    assert first.metadata.spaces.dense != second.metadata.spaces.dense
    engine = MemoryEngine()
    documents = [Document(f"d{i}", text) for i, text in enumerate(TEXTS)]
    old = engine.add(encoded(first, documents), first)
    with Searcher(open_packs(packs), engine, candidates=20, resolve_every=0) as searcher:
        assert searcher.search("heavy arm").generation == old.name
        new = engine.add(encoded(second, documents), second)
        stays = searcher.search("heavy arm")
        assert stays.generation == old.name
        assert second.metadata.pack_id in stays.behind
        assert str(packs) in stays.behind
        (tmp_path / "later").rename(packs / "b")
        moved = searcher.search("heavy arm")
        assert (moved.generation, moved.behind) == (new.name, "")
        assert searcher.queries.metadata.pack_id == second.metadata.pack_id
        with Searcher(second, engine, candidates=20) as direct:
            assert moved.hits == direct.search("heavy arm").hits
        engine.publish(old)
        assert searcher.search("heavy arm").generation == old.name


def test_a_pack_of_the_same_space_serves(tmp_path: Path, tiny_tokenizer: QueryTokenizer) -> None:
    """One that was distilled again: its table differs, the documents' space does not."""
    packs = tmp_path / "packs"
    made = other_pack(tmp_path / "made", tiny_tokenizer, 1)
    again = other_pack(packs / "again", tiny_tokenizer, 2)
    assert made.metadata.pack_id != again.metadata.pack_id
    engine = MemoryEngine()
    engine.add(encoded(made, [Document("d0", "heavy")]), made)
    with Searcher(open_packs(packs), engine) as searcher:
        assert [hit.id for hit in searcher.search("heavy").hits] == ["d0"]
        assert searcher.queries.metadata.pack_id == again.metadata.pack_id


def test_packs_that_are_not_there(tmp_path: Path, tiny_tokenizer: QueryTokenizer) -> None:
    with pytest.raises(PackError, match="no query pack in"):
        open_packs(tmp_path)
    with pytest.raises(PackError):
        open_packs(tmp_path / "nowhere")
    first = other_pack(tmp_path / "packs" / "a", tiny_tokenizer, 1)
    second = other_pack(tmp_path / "b", tiny_tokenizer, 2, **another_space(first))
    engine = MemoryEngine()
    engine.add(encoded(second, [Document("d0", "heavy")]), second)
    with (
        Searcher(open_packs(tmp_path / "packs"), engine) as searcher,
        pytest.raises(PackMismatchError, match="none of the 1 packs") as caught,
    ):
        searcher.search("heavy")
    assert second.metadata.pack_id in caught.value.message


def test_half_a_pair_is_not_searched(tiny_encoder: QueryEncoder) -> None:
    engine = MemoryEngine()
    documents = encoded(tiny_encoder, [Document("d0", "heavy")])
    engine.add(documents, tiny_encoder, arms=("sparse",), arms_elsewhere=("dense",))
    with (
        Searcher(tiny_encoder, engine) as searcher,
        pytest.raises(EngineError, match="its dense arm is in another engine"),
    ):
        searcher.search("heavy")


def test_answers_are_plain_values(searcher: Searcher) -> None:
    answer = asdict(searcher.search("heavy arm", 2, explain=True))
    assert answer["hits"][0]["explanation"]["sparse"][0]["token"] in ("heavy", "arm")
