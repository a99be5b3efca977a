"""The Lucene engine with a real Lucene in this process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.errors import EngineError, InputError
from steelyard.indexer.loading.load import exact_index, load_shards
from steelyard.plugin.engine import Engine
from steelyard.plugin.filters import Eq, Filter
from steelyard.plugin.fusion import Fusion
from steelyard.plugin.lucene import build
from steelyard.plugin.lucene import documents as documents_module
from steelyard.plugin.lucene.impact_reader import query_text
from steelyard.plugin.ranking import rank
from steelyard.plugin.searcher import Searcher
from steelyard.plugin.urls import open_engine
from steelyard.progress import SilentProgress
from steelyard.types import EncodedDocuments, SparseVectors
from tests.conftest import SCIFACT, Small
from tests.lucene_documents import (
    NAME,
    documents,
    fill,
    generation,
    open_folder,
    with_ids,
)
from tests.test_filter_mask import CONDITIONS, Meaning, everything

pytestmark = [pytest.mark.lucene]

FLOAT32 = 2e-6
"""Of the largest score: products and their sum are rounded to float32."""


@pytest.fixture
def lucene(tmp_path: Path) -> Iterator[Engine]:
    """An empty folder."""
    opened = open_folder(tmp_path / "engine")
    yield opened
    opened.close()


@pytest.fixture
def filled(lucene: Engine) -> Engine:
    fill(lucene)
    return lucene


def test_what_is_stored_comes_back(filled: Engine) -> None:
    found = filled.resolve()
    assert found == generation()
    index = filled.open(found)
    assert index.count() == 40
    assert index.arms == ("dense", "sparse")
    content = documents(40)
    impacts = np.minimum(np.floor(content.sparse.to_csr().toarray() * np.float32(100)), 512)
    stored = index.get(["d7", "nobody", "d4"], vectors=True, terms=True)
    assert set(stored) == {"d7", "d4"}
    for identifier, row in (("d7", 7), ("d4", 4)):
        assert stored[identifier].document == content.documents[row]
        np.testing.assert_array_equal(stored[identifier].dense, content.dense[row])
        terms = stored[identifier].impacts
        assert terms is not None
        np.testing.assert_array_equal(terms[0], content.sparse.row(row)[0])
        np.testing.assert_array_equal(terms[1], impacts[row][terms[0]])
    assert index.get([]) == {}
    exported = index.export()
    assert list(exported.documents) == list(content.documents)
    np.testing.assert_array_equal(exported.dense, content.dense)
    np.testing.assert_array_equal(exported.sparse.to_csr().toarray(), impacts)


def test_both_arms_are_exact_inner_products(filled: Engine) -> None:
    index, content = filled.open(generation()), documents(40)
    queries = np.vstack([content.dense[:3], np.zeros((1, 8), np.float32)])
    answers = index.dense.search(queries, 10)
    assert answers[3].ids == []
    for query, answer in zip(queries[:3], answers, strict=False):
        scores = content.dense @ query
        assert answer.ids == [f"d{i}" for i in np.argsort(-scores)[:10]]
        np.testing.assert_allclose(answer.scores, np.sort(scores)[::-1][:10], rtol=1e-5)
    assert index.dense.search(queries[:1], 4, offset=3)[0].ids == answers[0].ids[3:7]
    sparse = SparseVectors.from_rows(
        [
            (np.array([1, 7, 30], np.int32), np.array([2, 1e-9, 70.125], np.float32)),
            (np.zeros(0, np.int32), np.zeros(0, np.float32)),
        ],
        50,
    )
    found = index.sparse.search(sparse, 40)
    impacts = index.export().sparse.to_csr().toarray().astype(np.float64) / 100
    expected = impacts @ sparse.to_csr().toarray()[0].astype(np.float64)
    assert set(found[0].ids) == {f"d{i}" for i in np.flatnonzero(expected)}
    rows = [int(identifier[1:]) for identifier in found[0].ids]
    np.testing.assert_allclose(found[0].scores, expected[rows], rtol=FLOAT32)
    assert (np.diff(found[0].scores) <= 0).all()
    assert found[1].ids == []
    assert index.sparse.search(sparse, 2, offset=1)[0].ids == found[0].ids[1:3]


def test_every_impact_is_exact(lucene: Engine) -> None:
    """Lucene keeps 1 to 512 as they are: one document each, and one beyond, which is clipped."""
    weights = (np.arange(1, 514, dtype=np.float32) + np.float32(0.5)) / 100
    rows = [(np.array([7], np.int32), weight[None]) for weight in weights]
    content = documents(513)
    content = EncodedDocuments(content.documents, content.dense, SparseVectors.from_rows(rows, 50))
    made = generation()
    lucene.create(made)
    assert lucene.upsert(made, content).clipped == 1
    lucene.seal(made)
    query = SparseVectors.from_rows([(np.array([7], np.int32), np.ones(1, np.float32))], 50)
    found = lucene.open(made).sparse.search(query, 1000)[0]
    scores = dict(zip(found.ids, found.scores.tolist(), strict=True))
    assert scores == {f"d{i}": min(i + 1, 512) / 100 for i in range(513)}


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**31 - 1),
            st.floats(min_value=2.0**-126, allow_infinity=False, allow_nan=False, width=32),
        ),
        min_size=1,
        max_size=9,
    )
)
def test_query_weights_are_written_with_all_digits(terms: list[tuple[int, float]]) -> None:
    ids = np.array([term for term, _ in terms], np.int32)
    weights = np.array([weight for _, weight in terms], np.float32)
    pairs = [pair.split("^") for pair in query_text(ids, weights).split(" ")]
    assert [int(term) for term, _ in pairs] == ids.tolist()
    assert [np.float32(weight) for _, weight in pairs] == weights.tolist()
    assert all(set(weight) <= set("0123456789.") and weight[0].isdigit() for _, weight in pairs)


@pytest.mark.parametrize(("condition", "meaning"), CONDITIONS)
def test_filters_act_inside_both_arms(filled: Engine, condition: Filter, meaning: Meaning) -> None:
    index, content = filled.open(generation()), documents(40)
    wanted = {d.id for d in content.documents if meaning(d.metadata)}
    found = index.dense.search(content.dense[:1], 40, filter=condition)[0]
    assert set(found.ids) == wanted
    ranked = index.sparse.search(everything(), 40)[0].ids
    best = [identifier for identifier in ranked if identifier in wanted]
    assert index.sparse.search(everything(), 40, filter=condition)[0].ids == best
    page = index.sparse.search(everything(), 2, filter=condition, offset=1)[0].ids
    assert page == best[1:3]


def test_a_filter_on_an_undeclared_field_names_the_declared(filled: Engine) -> None:
    index = filled.open(generation())
    with pytest.raises(InputError, match="no metadata field 'colour'") as caught:
        index.sparse.search(everything(), 3, filter=Eq("colour", "red"))
    assert caught.value.hint == "declared: brand, price, sale, stock"


def test_ids_of_any_characters(lucene: Engine) -> None:
    ids = [
        "o'brien",
        'say "x"',
        "back\\slash",
        "new\nline",
        " ",
        "é🙂",
        "a\x00b",
        "%_",
        "\u0800" * 170,
    ]
    made = generation()
    fill(lucene, with_ids(documents(len(ids)), ids))
    index = lucene.open(made)
    assert set(index.get(ids)) == set(ids)
    content = documents(len(ids))
    assert set(index.dense.search(content.dense[:1], 20)[0].ids) == set(ids)
    with_terms = {identifier for row, identifier in enumerate(ids) if row % 4}
    assert set(index.sparse.search(everything(), 20)[0].ids) == with_terms
    for left, identifier in zip(range(len(ids) - 1, -1, -1), ids, strict=True):
        lucene.delete(made, [identifier])
        lucene.seal(made)
        assert index.count() == left
    assert index.dense.search(content.dense[:1], 20)[0].ids == []
    assert index.sparse.search(everything(), 20)[0].ids == []


def test_what_is_written_after_a_seal_is_seen_after_the_next(filled: Engine) -> None:
    index, content, made = filled.open(generation()), documents(40), generation()
    newer = replace(content.documents[7], text="newer")
    vector, terms = content.dense[8:9], content.sparse.select([2])
    filled.upsert(made, EncodedDocuments([newer], vector, terms))
    filled.delete(made, ["d3", "nobody"])
    again = replace(content.documents[5], text="once more")
    filled.delete(made, ["d5"])
    filled.upsert(made, EncodedDocuments([again, again], content.dense[4:6], terms_of(content)))
    assert index.count() == 40
    assert index.get(["d7"])["d7"].document.text == "text 7"
    filled.seal(made)
    assert index.count() == 39
    stored = index.get(["d5", "d7"], vectors=True)
    assert stored["d7"].document.text == "newer"
    np.testing.assert_array_equal(stored["d7"].dense, content.dense[8])
    np.testing.assert_array_equal(stored["d5"].dense, content.dense[5])
    assert "d3" not in index.dense.search(content.dense[3:4], 40)[0].ids
    exported = index.export()
    rows = {d.id: row for row, d in enumerate(exported.documents)}
    np.testing.assert_array_equal(exported.sparse.row(rows["d7"])[0], content.sparse.row(2)[0])
    scores = dict(zip(*arm(index.sparse.search(everything(), 40)[0]), strict=True))
    assert scores["d7"] == pytest.approx(exported.sparse.row(rows["d7"])[1].sum() / 100)
    assert sorted(path.name for path in folder(filled).iterdir()) == [
        "build-2", "current", "generation.json", "parts"]  # fmt: skip


def terms_of(content: EncodedDocuments) -> SparseVectors:
    return content.sparse.select([4, 5])


def arm(found: object) -> tuple[list[str], list[float]]:
    ids, scores = getattr(found, "ids"), getattr(found, "scores")  # noqa: B009
    return ids, scores.tolist()


def folder(engine: Engine, name: str = NAME) -> Path:
    inner = getattr(engine, "_folder")  # noqa: B009
    return Path(inner.path) / name


def test_sealing_again_without_news_is_no_work(filled: Engine) -> None:
    before = folder(filled).joinpath("current").readlink()
    filled.seal(generation())
    assert folder(filled).joinpath("current").readlink() == before


def test_a_seal_that_dies_is_taken_up_by_the_next(
    filled: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, content = generation(), documents(45)
    index = filled.open(made)
    filled.upsert(made, content)
    real = documents_module.batch_terms

    def dies(batch: object) -> object:
        monkeypatch.setattr(build, "batch_terms", real)
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "batch_terms", dies)
    with pytest.raises(KeyboardInterrupt):
        filled.seal(made)
    assert index.count() == 40
    assert {p.name for p in folder(filled).iterdir()} == {
        "build-1", "current", "generation.json", "parts"}  # fmt: skip
    filled.seal(made)
    assert index.count() == 45


def test_parts_that_outlived_their_seal_change_nothing(filled: Engine, tmp_path: Path) -> None:
    """A seal may be killed between its commit and removing the parts; they are replayed."""
    made, content = generation(), documents(40)
    filled.upsert(made, content)
    filled.delete(made, ["d3"])
    shutil.copytree(folder(filled) / "parts", tmp_path / "kept")
    filled.seal(made)
    for part in (tmp_path / "kept").iterdir():
        shutil.copy(part, folder(filled) / "parts")
    filled.seal(made)
    exported = filled.open(made).export()
    assert sorted(d.id for d in exported.documents) == sorted(
        d.id for d in content.documents if d.id != "d3"
    )


def test_the_alias_moves_and_what_it_stands_for_stays(filled: Engine) -> None:
    newer = generation("demo_20260102000000_00000002")
    index = filled.open(generation())
    filled.create(newer)
    filled.upsert(newer, documents(3))
    with pytest.raises(EngineError, match="was never sealed"):
        filled.publish(newer)
    with pytest.raises(EngineError, match="was never sealed"):
        filled.open(newer)
    filled.seal(newer)
    assert filled.resolve() == generation()
    filled.publish(newer)
    assert filled.resolve() == newer
    assert [g.name for g in filled.generations()] == [newer.name, generation().name]
    with pytest.raises(EngineError, match="so it stays"):
        filled.drop(newer)
    filled.drop(generation())
    filled.drop(generation())
    assert [g.name for g in filled.generations()] == [newer.name]
    with pytest.raises(EngineError, match="not in"):
        index.dense.search(documents(1).dense, 3)
    with pytest.raises(EngineError, match="exists already"):
        filled.create(newer)
    for action in (filled.seal, filled.publish, filled.open):
        with pytest.raises(EngineError, match="it was dropped"):
            action(generation())


def test_an_empty_generation(lucene: Engine) -> None:
    fill(lucene, documents(0))
    index = lucene.open(generation())
    assert index.count() == 0
    assert len(index.export()) == 0
    assert index.dense.search(documents(2).dense, 5)[1].ids == []
    assert index.sparse.search(everything(), 5)[0].ids == []
    assert index.dense.search(documents(1).dense, 5, filter=Eq("stock", 1))[0].ids == []


@pytest.mark.parametrize("arm", ["dense", "sparse"])
def test_an_index_of_one_arm(lucene: Engine, arm: str) -> None:
    other = "sparse" if arm == "dense" else "dense"
    made = replace(generation(), arms=(arm,), arms_elsewhere=(other,))
    content = documents(6)
    fill(lucene, content, made)
    index = lucene.open(made)
    assert lucene.resolve() == made
    assert index.arms == (arm,)
    with pytest.raises(EngineError, match=f"has no {other} arm"):
        _ = index.sparse.search(everything(), 3), index.dense.search(content.dense, 3)
    exported = index.export()
    assert exported.dense.shape == (6, 8)
    assert exported.dense.any() == (arm == "dense")
    assert bool(len(exported.sparse.ids)) == (arm == "sparse")
    assert len(exported.sparse) == 6


def test_wrong_vectors_are_refused(filled: Engine) -> None:
    content = documents(2)
    narrow = EncodedDocuments(content.documents, content.dense[:, :4].copy(), content.sparse)
    with pytest.raises(EngineError, match=r"vectors of 4 dimensions .* which has 8"):
        filled.upsert(generation(), narrow)
    wide = replace(content.sparse, vocabulary_size=60)
    with pytest.raises(EngineError, match=r"vectors of 60 columns .* which has 50"):
        filled.upsert(generation(), EncodedDocuments(content.documents, content.dense, wide))
    broken = content.dense.copy()
    broken[1, 3] = np.nan
    with pytest.raises(EngineError, match="'d1': its dense vector has NaN"):
        filled.upsert(generation(), EncodedDocuments(content.documents, broken, content.sparse))
    with pytest.raises(EngineError, match="has 513 bytes, engines take 1 to 512"):
        filled.upsert(generation(), with_ids(content, ["d0", "x" * 513]))
    filled.seal(generation())
    index = filled.open(generation())
    assert index.count() == 40
    with pytest.raises(EngineError, match=r"queries of 4 dimensions .* which has 8"):
        index.dense.search(content.dense[:, :4].copy(), 3)
    with pytest.raises(InputError, match=r"offset 0 \+ k 0"):
        index.sparse.search(everything(), 0)
    with pytest.raises(EngineError, match="is no generation of 'demo'"):
        filled.create(generation("../demo_20260101000000_00000001"))


def test_more_terms_than_lucene_takes_and_a_time_limit(lucene: Engine) -> None:
    made = replace(generation(), vocabulary_size=5000)
    rows = [(np.arange(5000, dtype=np.int32), np.full(5000, 0.011, np.float32))] * 3
    content = documents(3)
    sparse = SparseVectors.from_rows(rows, 5000)
    fill(lucene, EncodedDocuments(content.documents, content.dense, sparse), made)
    index = lucene.open(made)
    weights = np.linspace(0.5, 3, 5000).astype(np.float32)
    query = SparseVectors.from_rows([(np.arange(5000, dtype=np.int32), weights)], 5000)
    found = index.sparse.search(query, 3)[0]
    np.testing.assert_allclose(found.scores, np.sort(weights)[-512:].sum() / 100, rtol=1e-5)
    with pytest.raises(EngineError, match=r"Lucene did not search .* within 0 s"):
        index.sparse.search(query.select([0] * 500), 3, timeout=0)


def test_many_threads_search_while_the_generation_is_sealed_again(filled: Engine) -> None:
    index, content, made = filled.open(generation()), documents(40), generation()
    expected = index.sparse.search(everything(), 40)[0].ids
    stop, wrong = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            try:
                if index.sparse.search(everything(), 40)[0].ids != expected:
                    wrong.append("another ranking")
                if len(index.dense.search(content.dense[:2], 40)[1].ids) != 40:
                    wrong.append("another number")
                if len(index.get(["d1", "d9"], vectors=True)) != 2:
                    wrong.append("not found")
            except Exception as error:  # told by the test, which runs in another thread
                wrong.append(repr(error))

    with ThreadPoolExecutor(8) as threads:
        readers = [threads.submit(read) for _ in range(8)]
        for _ in range(5):
            filled.upsert(made, content)
            filled.seal(made)
        stop.set()
    assert [reader.result() for reader in readers] == [None] * 8
    assert wrong == []


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux what is open")
def test_files_that_are_no_longer_searched_are_let_go_of(filled: Engine) -> None:
    made, path = generation(), folder(filled)

    def in_use(build: str) -> bool:
        return f"{path / build}/" in Path("/proc/self/maps").read_text(encoding="utf-8")

    first, second = filled.open(made), filled.open(made)
    first.sparse.search(everything(), 5)
    assert in_use("build-1")
    filled.upsert(made, documents(40))
    filled.seal(made)
    first.sparse.search(everything(), 5)
    assert in_use("build-1")  # by the other one
    assert second.sparse.search(everything(), 5)[0].ids
    assert in_use("build-2")
    assert not in_use("build-1")
    del first, second
    other = generation(f"{NAME[:-1]}2")
    fill(filled, documents(3), other)
    assert filled.open(other).sparse.search(everything(), 5)[0].ids
    assert not in_use("build-2")


def load(small: Small, engine: Engine, second: int = 0, keep: int = 1) -> str:
    """The small collection; another ``second`` is another content."""
    moment = datetime(2026, 1, 1, 0, 0, second, tzinfo=timezone.utc)
    made = small.made
    plan = made.manifest.plan.model_copy(update={"fields": {f"field{second}": "int"}})
    manifest = made.manifest.model_copy(update={"plan": plan})
    report = load_shards(
        manifest, made.shards, made.metadata, engine, SilentProgress(),
        keep=keep, now=lambda: moment, grace=0.0,
    )  # fmt: skip
    assert report.documents == 120
    return report.generation


def test_loading_publishes_once_and_removes_what_a_killed_load_left(
    small: Small, lucene: Engine
) -> None:
    first = load(small, lucene)
    assert load(small, lucene) == first
    orphan = generation("demo_20260101000003_00000009")
    lucene.create(orphan)
    lucene.upsert(orphan, documents(3))
    second = load(small, lucene, 4)
    assert [g.name for g in lucene.generations()] == [second, first]


def test_a_real_collection_ranks_as_exact_search_does(small: Small, lucene: Engine) -> None:
    load(small, lucene)
    found = lucene.resolve()
    assert found is not None
    assert found.pack_id == small.made.metadata.pack_id
    index, made = lucene.open(found), small.made
    exact = exact_index(made.manifest, made.shards, made.metadata)
    lines = (SCIFACT / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines[:1000:50]]
    queries = small.encoder.encode_query([*texts, "", "🙂", "heart " * 5000])
    for ours, theirs in zip(
        index.sparse.search(queries.sparse, 1000),
        exact.sparse.search(queries.sparse, 1000),
        strict=True,
    ):
        assert set(ours.ids) == set(theirs.ids)
        scale = float(theirs.scores.max(initial=1e-9))
        wanted = dict(zip(theirs.ids, theirs.scores.tolist(), strict=True))
        scores = [wanted[identifier] for identifier in ours.ids]
        np.testing.assert_allclose(ours.scores, scores, rtol=0, atol=FLOAT32 * scale)
        assert (np.diff(scores) <= 2 * FLOAT32 * scale).all()
    for dense, wanted_dense in zip(
        index.dense.search(queries.dense, 1000),
        exact.dense.search(queries.dense, 1000),
        strict=True,
    ):
        assert dense.ids == wanted_dense.ids
    fusion = Fusion()
    with ThreadPoolExecutor(1) as threads:
        for feedback in (0, 3):
            ours_fused, theirs_fused = (
                rank(searched, queries, fusion, 1000, threads, feedback=feedback)
                for searched in (index, exact)
            )
            same = [
                a.fused.ids[:10] == b.fused.ids[:10]
                for a, b in zip(ours_fused, theirs_fused, strict=True)
            ]
            assert all(same)


def test_the_searcher_from_text_to_titles(small: Small, lucene: Engine) -> None:
    load(small, lucene)
    with Searcher(small.encoder, lucene) as searcher:
        exported = {d.id: d for d in searcher.index().export().documents}
        known = [d for d in exported.values() if len(d.title.split()) > 6][:10]
        assert sum(searcher.search(d.title, 5).hits[0].id == d.id for d in known) >= 9
        best = searcher.search(known[0].title, 5).hits[0]
        assert best.document == exported[best.id]
        assert searcher.search(known[0].title, 5, feedback=3).hits[0].dense != best.dense
        for text in ("", "🙂", "\x00", "\ud800", "12^3 AND (x", "*:*"):
            answer = searcher.search(text, feedback=3)
            assert answer.empty == (not answer.hits)
        first = searcher.search("heart attack", 3)
        load(small, lucene, 5, keep=0)
        second = searcher.search("heart attack", 3)
        assert second.generation != first.generation
        assert [hit.id for hit in second.hits] == [hit.id for hit in first.hits]


def test_two_names_share_a_folder_and_a_name_has_one_writer(
    filled: Engine, tmp_path: Path
) -> None:
    other = open_folder(tmp_path / "engine", "other")
    fill(other, None, generation("other_20260101000000_00000001"))
    assert [g.name for g in other.generations()] == ["other_20260101000000_00000001"]
    assert [g.name for g in filled.generations()] == [NAME]
    second = open_folder(tmp_path / "engine")
    assert second.resolve() == generation()
    assert second.open(generation()).count() == 40
    with pytest.raises(InputError, match="another process writes to demo"):
        second.create(generation("demo_20260102000000_00000002"))
    filled.close()
    second.create(generation("demo_20260102000000_00000002"))
    second.close()
    other.close()


def test_folders_that_are_something_else(tmp_path: Path) -> None:
    other = tmp_path / "mine"
    other.mkdir()
    (other / "diary.txt").write_text("dear", encoding="utf-8")
    for path in (other, other / "diary.txt"):
        with pytest.raises(InputError, match="is not a Lucene folder of Steelyard"):
            open_folder(path)
    assert [path.name for path in other.iterdir()] == ["diary.txt"]
    with pytest.raises(EngineError, match="no Lucene folder at"):
        open_engine(f"lucene://{tmp_path / 'none'}?name=demo", must_exist=True)
    assert not (tmp_path / "none").exists()
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "steelyard.json").write_text('{"kind": "lucene", "format": 2}', encoding="utf-8")
    with pytest.raises(InputError, match="upgrade Steelyard"):
        open_folder(newer)
    for url in ("lucene://host/x?name=demo", "lucene:?name=demo"):
        with pytest.raises(InputError, match="lucene is a folder here"):
            open_engine(url)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("generation.json", "checksum does not fit"),
        ("current/documents.arrow", "documents.arrow is damaged"),
        ("current/dense.npy", "dense.npy is damaged"),
        ("current/lucene/segments_1", "Lucene could not read"),
    ],
)
def test_a_damaged_file_is_named(filled: Engine, name: str, message: str) -> None:
    path = folder(filled) / name
    content = path.read_bytes()
    path.write_bytes(b"{}" if name.endswith("json") else content[: len(content) // 2])
    with pytest.raises(EngineError, match=message):
        filled.open(generation())


def test_a_folder_that_may_not_be_written(filled: Engine, tmp_path: Path) -> None:
    """As another user than root where we are root; readers need no right to write."""
    filled.close()
    path = tmp_path / "engine"
    path.chmod(0o555)
    code = (
        "import os, sys\n"
        "from tests.lucene_documents import generation, open_folder\n"
        "from pathlib import Path\n"
        "engine = open_folder(Path(sys.argv[1]))\n"
        "engine.open(engine.resolve()).count()\n"
        "if os.getuid() == 0: os.setegid(65534); os.seteuid(65534)\n"
        "print(engine.open(engine.resolve()).count())\n"
        "engine.create(generation('demo_20260102000000_00000002'))\n"
    )
    for parent in (tmp_path, *tmp_path.parents[:-2]):
        parent.chmod(0o755)
    done = python(code, str(path))
    path.chmod(0o755)
    assert done.stdout == "40\n", done.stderr
    assert "could not lock" in done.stderr
    assert "Permission denied" in done.stderr


def test_without_java_the_error_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from steelyard.local_servers import java\n"
        "java.SYSTEM_JAVAS = Path('/nowhere')\n"
        "from steelyard.errors import SteelyardError\n"
        "from tests.lucene_documents import open_folder\n"
        "try: open_folder(Path(sys.argv[1]))\n"
        "except SteelyardError as error: print(error)\n"
    )
    done = python(code, str(tmp_path / "x"), PATH="/nowhere", JAVA_HOME="/nowhere")
    assert "Lucene needs Java 21 or newer" in done.stdout, done.stderr
    assert "apt install openjdk-21" in done.stdout
    assert not (tmp_path / "x").exists()


def test_without_pyserini_the_error_names_the_install_line(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "sys.modules[sys.argv[2]] = None\n"
        "from steelyard.errors import MissingExtraError\n"
        "from tests.lucene_documents import open_folder\n"
        "try: open_folder(Path(sys.argv[1]))\n"
        "except MissingExtraError as error: print(error)\n"
    )
    for module in ("jnius_config", "pyarrow", "pyserini"):
        done = python(code, str(tmp_path / "x"), module)
        assert 'pip install "steelyard[lucene]"' in done.stdout, done.stderr
        assert module in done.stdout


def test_ctrl_c_stays_pythons_and_the_environment_stays(filled: Engine) -> None:
    """Java would end the process on SIGINT without a word; it says nothing on its own either."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        # A run in the background has it ignored, and its children too.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "before = dict(os.environ)\n"
        "from tests.lucene_documents import generation, open_folder\n"
        "index = open_folder(Path(sys.argv[1])).open(generation())\n"
        "assert dict(os.environ) == before\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    signal.pause()\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', index.count())\n"
    )
    done = python(code, str(folder(filled).parent))
    assert (done.stdout, done.stderr) == ("interrupted 40\n", "")


def test_a_killed_writer_leaves_the_alias_and_lets_go_of_the_lock(filled: Engine) -> None:
    filled.close()
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.lucene_documents import documents, generation, open_folder\n"
        "engine = open_folder(Path(sys.argv[1]))\n"
        "made = generation('demo_20270102000000_00000002')\n"
        "engine.create(made)\n"
        "engine.upsert(made, documents(30))\n"
        "from steelyard.plugin.lucene.impact_writer import ImpactWriter\n"
        "ImpactWriter._finish = lambda self: os.kill(os.getpid(), signal.SIGKILL)\n"
        "engine.seal(made)\n"
    )
    assert python(code, str(folder(filled).parent)).returncode == -9
    assert filled.resolve() == generation()
    left = generation("demo_20270102000000_00000002")
    assert [g.name for g in filled.generations()] == [left.name, NAME]
    with pytest.raises(EngineError, match="was never sealed"):
        filled.open(left)
    filled.seal(left)
    assert filled.open(left).count() == 30
    assert not [p.name for p in folder(filled, left.name).iterdir() if p.name.startswith(".build")]
    filled.drop(left)
    assert [g.name for g in filled.generations()] == [NAME]


def python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).resolve().parents[1])
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        env={**os.environ, "PYTHONPATH": root, **environment},
    )
