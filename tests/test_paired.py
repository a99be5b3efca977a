"""Two engines as one, on two real Milvus Lite files: one has vectors, one terms and texts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

from steelyard.errors import EngineError, InputError
from steelyard.indexer.encoding.shards import read_shard
from steelyard.indexer.loading.load import load_shards
from steelyard.indexer.loading.sink import LoadReport
from steelyard.plugin.async_searcher import AsyncSearcher
from steelyard.plugin.engine import Engine
from steelyard.plugin.filters import Eq
from steelyard.plugin.searcher import Searcher
from steelyard.plugin.urls import open_engine
from steelyard.progress import SilentProgress
from steelyard.types import Document, EncodedDocuments
from tests.conftest import Small
from tests.test_milvus_lite import documents, generation


@pytest.fixture
def urls(tmp_path: Path) -> tuple[str, str]:
    first, second = tmp_path / "dense.db", tmp_path / "sparse.db"
    return f"milvus-lite://{first}?name=demo", f"milvus-lite://{second}?name=demo"


@pytest.fixture
def pair(urls: tuple[str, str]) -> Iterator[Engine]:
    opened = open_engine(f"dense={urls[0]},sparse={urls[1]}")
    yield opened
    opened.close()


def load(small: Small, engine: Engine, second: int = 0) -> LoadReport:
    moment = datetime(2026, 1, 1, 0, 0, second, tzinfo=timezone.utc)
    made = small.made
    plan = made.manifest.plan.model_copy(update={"fields": {f"field{second}": "int"}})
    manifest = made.manifest.model_copy(update={"plan": plan})
    return load_shards(
        manifest,
        made.shards,
        made.metadata,
        engine,
        SilentProgress(),
        now=lambda: moment,
        grace=0.0,
    )


def test_each_half_holds_its_own(pair: Engine, urls: tuple[str, str]) -> None:
    whole, content = generation(), documents(40)
    pair.create(whole)
    pair.upsert(whole, content)
    pair.seal(whole)
    assert pair.resolve() is None
    pair.publish(whole)
    assert pair.resolve() == whole
    index = pair.open(whole)
    assert index.arms == ("dense", "sparse")
    assert index.count() == 40
    stored = index.get(["d7", "nobody"], vectors=True, terms=True)
    assert set(stored) == {"d7"}
    assert stored["d7"].document == content.documents[7]
    assert stored["d7"].dense is not None
    np.testing.assert_allclose(stored["d7"].dense, content.dense[7], rtol=1e-6)
    assert stored["d7"].impacts is not None
    assert stored["d7"].impacts[0].tolist() == content.sparse.row(7)[0].tolist()
    exported = index.export()
    order = {document.id: row for row, document in enumerate(exported.documents)}
    rows = [order[document.id] for document in content.documents]
    np.testing.assert_allclose(exported.dense[rows], content.dense, rtol=1e-6)
    pair.delete(whole, ["d7"])
    assert index.count() == 39
    pair.close()
    for url, held, elsewhere in (
        (urls[0], ("dense",), ("sparse",)),
        (urls[1], ("sparse",), ("dense",)),
    ):
        half = open_engine(url)
        found = half.resolve()
        assert found is not None
        assert (found.arms, found.arms_elsewhere) == (held, elsewhere)
        opened = half.open(found)
        assert opened.arms == held
        assert opened.count() == 39
        half.close()


@pytest.mark.parametrize("feedback", [0, 3])
def test_a_pair_ranks_as_one_engine_does(
    small: Small, pair: Engine, engine: Engine, feedback: int
) -> None:
    load(small, pair)
    load(small, engine)
    texts = [d.title for d in small_documents(small)[:12]]
    together, alone = Searcher(small.encoder, pair), Searcher(small.encoder, engine)

    async def by_tasks() -> list[list[str]]:
        searcher = AsyncSearcher(small.encoder, pair)
        answers = await asyncio.gather(*(searcher.search(t, feedback=feedback) for t in texts))
        return [[hit.id for hit in answer.hits] for answer in answers]

    tasks = asyncio.run(by_tasks())
    for text, awaited in zip(texts, tasks, strict=True):
        ours = together.search(text, feedback=feedback, explain=True).hits
        theirs = alone.search(text, feedback=feedback, explain=True).hits
        assert [hit.id for hit in ours] == [hit.id for hit in theirs] == awaited
        assert [hit.document for hit in ours] == [hit.document for hit in theirs]
        assert [h.explanation.sparse for h in ours if h.explanation] == [
            h.explanation.sparse for h in theirs if h.explanation
        ]


def small_documents(small: Small) -> list[Document]:
    made = small.made
    return [
        document
        for entry in made.manifest.shards
        for document in read_shard(made.shards / entry.name).documents
    ]


def test_filters_act_in_both_halves(pair: Engine) -> None:
    pair.create(generation())
    pair.upsert(generation(), documents(40))
    pair.seal(generation())
    index = pair.open(generation())
    condition = Eq("sale", True)
    wanted = {d.id for d in documents(40).documents if d.metadata.get("sale") is True}
    found = index.dense.search(documents(40).dense[:1], 40, filter=condition)[0]
    assert set(found.ids) == wanted
    terms = documents(40).sparse
    for answer in index.sparse.search(terms, 40, filter=condition):
        assert set(answer.ids) <= wanted
    assert any(answer.ids for answer in index.sparse.search(terms, 40, filter=condition))
    with pytest.raises(InputError, match="no metadata field 'colour'"):
        index.dense.search(documents(1).dense, 3, filter=Eq("colour", "red"))


def test_a_switch_over_moves_both(small: Small, pair: Engine, urls: tuple[str, str]) -> None:
    names = [load(small, pair, second).generation for second in range(3)]
    found = pair.resolve()
    assert found is not None
    assert found.name == names[2]
    assert [g.name for g in pair.generations()] == [names[2], names[1]]
    with pytest.raises(EngineError, match="so it stays"):
        pair.drop(found)
    pair.close()
    for url in urls:
        half = open_engine(url)
        assert [g.name for g in half.generations()] == [names[2], names[1]]
        outside = half.resolve()
        assert outside is not None
        assert outside.name == names[2]
        half.close()


def test_a_publish_that_was_killed_between_the_aliases(
    small: Small, pair: Engine, urls: tuple[str, str]
) -> None:
    """The lead's alias counts; the follower's is behind, and moved by the next load."""
    first, second = (load(small, pair, n).generation for n in (0, 1))
    pair.close()
    follower = open_engine(urls[0])
    (old,) = [g for g in follower.generations() if g.name == first]
    follower.publish(old)
    follower.close()
    again = open_engine(f"dense={urls[0]},sparse={urls[1]}")
    with Searcher(small.encoder, again) as searcher:
        assert searcher.search("heart attack").generation == second
        assert [g.name for g in again.generations()] == [second, first]
        again.drop(replace(again.generations()[1]))
        assert [g.name for g in again.generations()] == [second]


def test_what_a_killed_load_left_in_one_half(
    small: Small, pair: Engine, urls: tuple[str, str]
) -> None:
    load(small, pair)
    pair.close()
    follower = open_engine(urls[0])
    orphan = replace(
        generation("demo_20270101000000_00000009"), arms=("dense",), arms_elsewhere=("sparse",)
    )
    follower.create(orphan)
    follower.close()
    again = open_engine(f"dense={urls[0]},sparse={urls[1]}")
    assert load(small, again, 1).dropped == [orphan.name]
    again.close()


def test_a_document_that_the_lead_lacks_is_no_hit(small: Small, pair: Engine) -> None:
    load(small, pair)
    found = pair.resolve()
    assert found is not None
    searcher = Searcher(small.encoder, pair)
    ids = [hit.id for hit in searcher.search("heart attack", 5).hits]
    pair._lead.delete(replace(found, arms=("sparse",), arms_elsewhere=("dense",)), ids[:1])  # type: ignore[attr-defined]
    for options in ({"feedback": 3}, {"explain": True}, {"documents": False}):
        assert ids[0] not in [h.id for h in searcher.search("heart attack", 5, **options).hits]


def test_halves_that_do_not_belong_together(pair: Engine, urls: tuple[str, str]) -> None:
    whole = generation()
    pair.create(whole)
    pair.upsert(whole, documents(4))
    pair.seal(whole)
    pair.publish(whole)
    pair.close()
    other = open_engine(urls[0])
    half = replace(whole, arms=("dense",), arms_elsewhere=("sparse",), content="other")
    newer = replace(half, name="demo_20260102000000_00000002")
    other.create(newer)
    other.publish(newer)
    other.drop(half)
    other.create(half)
    other.upsert(half, documents(3))
    other.seal(half)
    other.close()
    again = open_engine(f"dense={urls[0]},sparse={urls[1]}")
    with pytest.raises(EngineError, match=r"content (is )?other"):
        again.open(whole)
    again.close()


def test_counts_that_differ_are_not_published(pair: Engine) -> None:
    whole, content = generation(), documents(10)
    pair.create(whole)
    pair.upsert(whole, content)
    few = EncodedDocuments(
        [replace(content.documents[0], id="more")], content.dense[:1], content.sparse.select([0])
    )
    pair._follower.upsert(  # type: ignore[attr-defined]
        replace(whole, arms=("dense",), arms_elsewhere=("sparse",)), few
    )
    with pytest.raises(EngineError, match="11 documents with dense vectors and 10 with"):
        pair.seal(whole)


def test_aliases_must_agree(tmp_path: Path) -> None:
    first, second = (f"milvus-lite://{tmp_path / n}.db?name={n}" for n in ("one", "two"))
    with pytest.raises(EngineError, match="alias is 'one', the sparse one's 'two'"):
        open_engine(f"dense={first},sparse={second}")
    with pytest.raises(InputError, match="no engine for 'elastic'"):
        open_engine(f"sparse={first},dense=elastic://x/one")
