"""Milvus Lite through the engine layer: a real file, both arms, generations, filters."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from steelyard.errors import EngineError, InputError, PackMismatchError
from steelyard.indexer.loading.load import exact_index, load_shards
from steelyard.plugin.abilities import Adopts
from steelyard.plugin.engine import Engine, Generation
from steelyard.plugin.filters import And, Eq, Exists, Filter, In, Not, Or, Range
from steelyard.plugin.packs import check_spaces
from steelyard.plugin.searcher import Searcher
from steelyard.plugin.urls import open_engine, parse_url
from steelyard.progress import SilentProgress
from steelyard.types import Document, EncodedDocuments, SparseVectors, l2_normalise
from tests.conftest import Small

FIELDS = {"price": "float", "brand": "keyword", "stock": "int", "sale": "bool"}
BRANDS = ["a", 'b"quoted"', "c\\slash"]


def generation(name: str = "demo_20260101000000_00000001") -> Generation:
    return Generation(name, "dense-x", "sparse-x", "pack-x", "content", 8, 50, 100.0, FIELDS)


def documents(count: int) -> EncodedDocuments:
    rng = np.random.default_rng(3)
    made = [
        Document(
            f"d{i}",
            f"text {i}",
            f"title {i}",
            f"p{i // 2}",
            {}
            if i % 5 == 4
            else {"price": i / 2, "brand": BRANDS[i % 3], "stock": i, "sale": i % 2 == 0},
        )
        for i in range(count)
    ]
    rows = [
        (np.sort(rng.choice(50, i % 4, replace=False)).astype(np.int32), weights)
        for i in range(count)
        if (weights := rng.uniform(0.01, 3, i % 4).astype(np.float32)) is not None
    ]
    dense = l2_normalise(rng.normal(size=(count, 8)).astype(np.float32))
    return EncodedDocuments(made, dense, SparseVectors.from_rows(rows, 50))


@pytest.fixture
def filled(engine: Engine) -> Engine:
    engine.create(generation())
    engine.upsert(generation(), documents(40))
    engine.seal(generation())
    engine.publish(generation())
    return engine


def test_what_is_stored_comes_back(filled: Engine) -> None:
    found = filled.resolve()
    assert found == generation()
    index = filled.open(found)
    assert index.count() == 40
    content = documents(40)
    stored = index.get(["d7", "nobody", "d4"], vectors=True)
    assert set(stored) == {"d7", "d4"}
    for identifier, row in (("d7", 7), ("d4", 4)):
        assert stored[identifier].document == content.documents[row]
        np.testing.assert_array_equal(stored[identifier].dense, content.dense[row])
    assert index.get([]) == {}
    exported = index.export()
    assert len(exported) == 40
    order = {document.id: row for row, document in enumerate(exported.documents)}
    rows = [order[document.id] for document in content.documents]
    np.testing.assert_array_equal(exported.dense[rows], content.dense)
    np.testing.assert_array_equal(
        exported.sparse.select(rows).weights, np.floor(content.sparse.weights * np.float32(100))
    )


def test_both_arms_are_exact_inner_products(filled: Engine) -> None:
    index, content = filled.open(generation()), documents(40)
    queries = np.vstack([content.dense[:3], np.zeros((1, 8), np.float32)])
    answers = index.dense.search(queries, 10)
    assert answers[3].ids == []
    for query, answer in zip(queries[:3], answers, strict=False):
        scores = content.dense @ query
        assert answer.ids == [f"d{i}" for i in np.argsort(-scores)[:10]]
        np.testing.assert_allclose(answer.scores, np.sort(scores)[::-1][:10], rtol=1e-5)
    page = index.dense.search(queries[:1], 4, offset=3)[0]
    assert page.ids == answers[0].ids[3:7]

    sparse = SparseVectors.from_rows(
        [
            (np.array([1, 7, 30], np.int32), np.array([2, 1, 0.5], np.float32)),
            (np.zeros(0, np.int32), np.zeros(0, np.float32)),
        ],
        50,
    )
    found = index.sparse.search(sparse, 40)
    impacts = np.floor(content.sparse.to_csr().toarray() * np.float32(100)) / 100
    expected = impacts @ sparse.to_csr().toarray()[0]
    assert {
        i: round(s, 4) for i, s in zip(found[0].ids, found[0].scores.tolist(), strict=True)
    } == {f"d{i}": round(float(s), 4) for i, s in enumerate(expected) if s > 0}
    assert found[1].ids == []


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Eq("brand", BRANDS[1]), lambda d: d.get("brand") == BRANDS[1]),
        (In("brand", BRANDS[1:]), lambda d: d.get("brand") in BRANDS[1:]),
        (Range("price", gte=5, lt=10), lambda d: 5 <= d.get("price", -1) < 10),
        (Exists("price"), lambda d: "price" in d),
        (Not(Exists("price")), lambda d: "price" not in d),
        (
            And([Eq("sale", True), Range("stock", gt=10)]),
            lambda d: d.get("sale") is True and d.get("stock", 0) > 10,
        ),
        (
            Or([Range("stock", lte=3), Eq("brand", "a")]),
            lambda d: d.get("stock", 99) <= 3 or d.get("brand") == "a",
        ),
    ],
)
def test_filters_act_inside_both_arms(filled: Engine, condition: Filter, expected: object) -> None:
    assert callable(expected)
    index, content = filled.open(generation()), documents(40)
    wanted = {d.id for d in content.documents if expected(dict(d.metadata))}
    assert 0 < len(wanted) < 40
    found = index.dense.search(content.dense[:1], 40, filter=condition)[0]
    assert set(found.ids) == wanted
    everything = SparseVectors.from_rows(
        [(np.arange(50, dtype=np.int32), np.ones(50, np.float32))], 50
    )
    with_terms = {f"d{i}" for i in range(40) if i % 4}
    assert set(index.sparse.search(everything, 40, filter=condition)[0].ids) == wanted & with_terms


def test_a_filter_on_an_undeclared_field_names_the_declared(filled: Engine) -> None:
    index = filled.open(generation())
    with pytest.raises(InputError, match="no metadata field 'colour'") as caught:
        index.dense.search(documents(1).dense, 3, filter=Eq("colour", "red"))
    assert caught.value.hint == "declared: brand, price, sale, stock"


def test_ids_of_any_characters(engine: Engine) -> None:
    ids = [
        "o'brien",
        'say "x"',
        "back\\slash",
        "a\\'b",
        "new\nline",
        "x'] or id != '",
        "é🙂",
        "%_",
    ]
    content = documents(len(ids))
    named = [replace(d, id=i) for d, i in zip(content.documents, ids, strict=True)]
    engine.create(generation())
    engine.upsert(generation(), EncodedDocuments(named, content.dense, content.sparse))
    index = engine.open(generation())
    assert set(index.get(ids)) == set(ids)
    assert set(index.dense.search(content.dense[:1], 20)[0].ids) == set(ids)
    for left, identifier in zip(range(len(ids) - 1, -1, -1), ids, strict=True):
        engine.delete(generation(), [identifier])
        assert index.count() == left


def test_what_a_killed_load_left_is_removed(small: Small, engine: Engine) -> None:
    published = load(small, engine)
    orphan = generation("demo_20270101000000_00000009")
    engine.create(orphan)
    made = small.made
    changed = made.manifest.model_copy(
        update={"plan": made.manifest.plan.model_copy(update={"fields": {"year": "int"}})}
    )
    report = load_shards(changed, made.shards, made.metadata, engine, SilentProgress())
    assert report.dropped == [orphan.name]
    assert [g.name for g in engine.generations()] == [report.generation, published]


def test_a_searcher_goes_on_when_its_generation_is_dropped(small: Small, engine: Engine) -> None:
    load(small, engine)
    searcher = Searcher(small.encoder, engine)
    first = searcher.search("heart attack", 3)
    made = small.made
    changed = made.manifest.model_copy(
        update={"plan": made.manifest.plan.model_copy(update={"fields": {"year": "int"}})}
    )
    load_shards(changed, made.shards, made.metadata, engine, SilentProgress(), keep=0, grace=0.0)
    second = searcher.search("heart attack", 3)
    assert second.generation != first.generation
    assert [hit.id for hit in second.hits] == [hit.id for hit in first.hits]


def test_an_upsert_replaces_and_a_delete_removes(filled: Engine) -> None:
    content = documents(40)
    newer = replace(content.documents[7], text="newer")
    filled.upsert(
        generation(), EncodedDocuments([newer], content.dense[7:8], content.sparse.select([7]))
    )
    filled.delete(generation(), ["d3", "nobody"])
    index = filled.open(generation())
    assert index.count() == 39
    assert index.get(["d7"])["d7"].document.text == "newer"
    assert "d3" not in index.dense.search(content.dense[3:4], 40)[0].ids


def test_the_alias_moves_and_what_it_stands_for_stays(filled: Engine) -> None:
    newer = generation("demo_20260102000000_00000002")
    filled.create(newer)
    filled.upsert(newer, documents(3))
    assert filled.resolve() == generation()
    filled.publish(newer)
    assert filled.resolve() == newer
    assert [g.name for g in filled.generations()] == [newer.name, generation().name]
    with pytest.raises(EngineError, match="so it stays"):
        filled.drop(newer)
    filled.drop(generation())
    assert [g.name for g in filled.generations()] == [newer.name]


def test_wrong_sizes_are_refused_with_both_numbers(filled: Engine) -> None:
    content = documents(2)
    narrow = EncodedDocuments(content.documents, content.dense[:, :4].copy(), content.sparse)
    with pytest.raises(EngineError, match=r"vectors of 4 dimensions .* which has 8"):
        filled.upsert(generation(), narrow)
    index = filled.open(generation())
    with pytest.raises(EngineError, match=r"queries of 4 dimensions .* which has 8"):
        index.dense.search(content.dense[:, :4].copy(), 3)
    with pytest.raises(InputError, match="Milvus gives 1 to 16,384"):
        index.dense.search(content.dense, 16000, offset=1000)


def test_very_long_texts_are_cut_for_display_only(engine: Engine) -> None:
    content = documents(1)
    long = replace(content.documents[0], text="é" * 40_000)
    engine.create(generation())
    engine.upsert(generation(), EncodedDocuments([long], content.dense, content.sparse))
    stored = engine.open(generation()).get(["d0"])["d0"].document.text
    assert stored == "é" * 32_767


def test_a_second_process_is_told_whose_file_it_is(filled: Engine, tmp_path: Path) -> None:
    assert filled.resolve() is not None
    code = (
        "from steelyard.plugin.urls import open_engine\n"
        f"open_engine('milvus-lite://{tmp_path / 'engine.db'}?name=demo')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode
    assert "belongs to one process at a time" in run.stderr


def test_a_closed_file_is_free_for_other_processes(filled: Engine, tmp_path: Path) -> None:
    url = f"milvus-lite://{tmp_path / 'engine.db'}?name=demo"
    second = open_engine(url)
    code = (
        "from steelyard.plugin.urls import open_engine\n"
        f"print(open_engine({url!r}).resolve().name)"
    )

    def other() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    filled.close()
    assert second.resolve() is not None  # the first one's end is not the second one's
    assert other().returncode
    second.close()
    second.close()
    freed = other()
    assert freed.stdout.strip() == generation().name, freed.stderr


def test_an_index_of_someone_else_is_not_taken_for_ours(engine: Engine, tmp_path: Path) -> None:
    engine.close()
    from pymilvus import MilvusClient

    client = MilvusClient(str(tmp_path / "engine.db"))
    client.create_collection("demo", dimension=4)
    client.create_collection("foreign", dimension=4)
    client.create_alias("foreign", "theirs")
    client.close()
    path = tmp_path / "engine.db"
    ours = open_engine(f"milvus-lite://{path}?name=demo")
    with pytest.raises(EngineError, match="is a collection here, not an alias"):
        ours.resolve()
    ours.close()
    theirs = open_engine(f"milvus-lite://{path}?name=theirs")
    with pytest.raises(EngineError, match="does not carry Steelyard's description"):
        theirs.resolve()
    theirs.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("elastic://host/x", "no engine for 'elastic'"),
        ("nonsense", "no engine for 'nonsense'"),
        ("milvus-lite://user:secret@/x.db", "carries credentials"),
        ("dense=opensearchs://u:secret@h/n", "no engine for 'dense=opensearchs'"),
        ("u:secret@h/n", "no engine for"),
        ("milvus-lite:///x.db?name=Bad-Name", "cannot name an index"),
        ("milvus-lite:///x.db?nmae=x", "unknown setting 'nmae'"),
        ("milvus-lite:///x?name=x", r"ends in \.db, not '/x'"),
        ("milvus-lite://folder/x.db", "not a host \\('folder'\\)"),
        ("milvus-lite://[x.db", "not an engine URL"),
        ("milvus-lite:///a#b.db", "has a '#' in it"),
    ],
)
def test_bad_urls(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_engine(url)
    assert "secret" not in str(caught.value)


def test_urls_are_taken_apart() -> None:
    parsed = parse_url("milvus-lite:///data/my%20index.db?name=demo")
    assert (parsed.scheme, parsed.path, parsed.alias) == (
        "milvus-lite",
        "/data/my index.db",
        "demo",
    )


def test_a_failed_file_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("not a database", encoding="utf-8")
    with pytest.raises(EngineError, match="cannot open the Milvus Lite file"):
        open_engine(f"milvus-lite://{path}?name=demo")


def load(small: Small, engine: Engine, second: int = 0) -> str:
    moment = datetime(2026, 1, 1, 0, 0, second, tzinfo=timezone.utc)
    made = small.made
    report = load_shards(
        made.manifest, made.shards, made.metadata, engine, SilentProgress(), now=lambda: moment
    )
    return report.generation


def test_loading_publishes_once_and_only_when_complete(small: Small, engine: Engine) -> None:
    first = load(small, engine)
    assert load(small, engine, 1) == first
    found = engine.resolve()
    assert found is not None
    assert found.pack_id == small.made.metadata.pack_id
    changed = small.made.manifest.model_copy(
        update={"encoded": 121, "shards": [*small.made.manifest.shards]}
    )
    made = small.made
    with pytest.raises(EngineError, match="counts 120 documents, 121 were sent"):
        load_shards(changed, made.shards, made.metadata, engine, SilentProgress())
    assert [g.name for g in engine.generations()] == [first]


def test_a_pack_of_another_space_is_refused_with_both(small: Small, engine: Engine) -> None:
    load(small, engine)
    found = engine.resolve()
    assert found is not None
    other = replace(found, dense_space="dense-0000000000000000")
    with pytest.raises(PackMismatchError) as caught:
        check_spaces(small.encoder.metadata.spaces, other)
    assert small.made.metadata.spaces.dense in caught.value.message
    assert "dense-0000000000000000" in caught.value.message
    made = small.made
    foreign = replace(made.metadata, spaces=replace(made.metadata.spaces, sparse="sparse-0"))
    with pytest.raises(PackMismatchError, match="sparse-0"):
        load_shards(made.manifest, made.shards, foreign, engine, SilentProgress())


def test_the_engine_ranks_as_exact_search_does(small: Small, engine: Engine) -> None:
    load(small, engine)
    found = engine.resolve()
    assert found is not None
    index, made = engine.open(found), small.made
    exact = exact_index(made.manifest, made.shards, made.metadata)
    texts = [d.title for d in list(index.export().documents)[:15]] + ["", "🙂"]
    queries = small.encoder.encode_query(texts)
    for ours, theirs in (
        (exact.dense.search(queries.dense, 50), index.dense.search(queries.dense, 50)),
        (exact.sparse.search(queries.sparse, 50), index.sparse.search(queries.sparse, 50)),
    ):
        for a, b in zip(ours, theirs, strict=True):
            assert a.ids[:10] == b.ids[:10]
            np.testing.assert_allclose(a.scores, b.scores, rtol=1e-5, atol=1e-6)


def test_the_searcher_from_text_to_titles(small: Small, engine: Engine) -> None:
    load(small, engine)
    searcher = Searcher(small.encoder, engine)
    index = searcher.index()
    documents = {d.id: d for d in index.export().documents}
    known = [d for d in documents.values() if len(d.title.split()) > 6][:10]
    firsts = [searcher.search(d.title, 5).hits[0].id == d.id for d in known]
    assert sum(firsts) >= 9
    answer = searcher.search(known[0].title, 5)
    best = answer.hits[0]
    assert best.document == documents[best.id]
    assert best.dense is not None
    assert best.sparse is not None
    assert [h.score for h in answer.hits] == sorted((h.score for h in answer.hits), reverse=True)
    assert [h.id for h in searcher.search(known[0].title, 3, offset=2).hits] == [
        h.id for h in answer.hits[2:]
    ]
    moved = searcher.search(known[0].title, 5, feedback=3)
    assert {h.id for h in moved.hits} != set()
    assert moved.hits[0].dense != best.dense
    for text in ("", "🙂", "\x00"):
        nothing = searcher.search(text, feedback=3)
        assert nothing.empty
        assert nothing.hits == []
    assert searcher.search("heart " * 100_000, 3).truncated
    with pytest.raises(InputError, match="offset 998 \\+ k 5 of 1000 candidates"):
        searcher.search("heart", 5, offset=998)


def test_no_index_of_that_name(small: Small, engine: Engine) -> None:
    with pytest.raises(EngineError, match="no index 'demo'"):
        Searcher(small.encoder, engine).index()


def check_only_read(engine: Engine, stamped: Generation) -> None:
    """An adopted collection is refused by all that writes, and by whatever name it is given."""
    for adopted in (stamped, replace(stamped, columns={})):
        changes: list[Callable[[], object]] = [
            partial(engine.create, adopted),
            partial(engine.upsert, adopted, documents(1)),
            partial(engine.delete, adopted, ["3", "103"]),
            partial(engine.seal, adopted),
            partial(engine.drop, adopted),
        ]
        message = "was adopted" if adopted.columns else "no generation of"
        for change in changes:
            with pytest.raises(EngineError, match=message) as caught:
                change()
            assert caught.value.hint


def test_a_collection_of_someone_else_is_adopted(engine: Engine, tmp_path: Path) -> None:
    engine.close()
    from pymilvus import MilvusClient

    path, content = tmp_path / "engine.db", documents(20)
    client = MilvusClient(str(path))
    client.create_collection("Theirs", dimension=8, metric_type="COSINE")
    rows = [{"id": i, "vector": content.dense[i] * 2, "colour": "red"} for i in range(20)]
    client.insert("Theirs", rows[:10] + [{**row, "colour": "green"} for row in rows[10:]])
    client.close()
    ours = open_engine(f"milvus-lite://{path}?name=demo")
    assert isinstance(ours, Adopts)
    asked = replace(generation("Theirs"), arms=("dense",), dims=0, fields={"colour": "keyword"})
    stamped = ours.adopt(asked)
    assert ours.generations() == []
    ours.publish(stamped)
    assert ours.resolve() == stamped
    assert ours.generations() == [stamped]
    newer = generation()
    ours.create(newer)
    assert ours.generations() == [newer, stamped]
    check_only_read(ours, stamped)
    ours.publish(newer)
    assert ours.generations() == [newer]
    check_only_read(ours, stamped)
    assert ours.open(stamped).count() == 20
    assert (stamped.dims, stamped.columns["dense"]) == (8, "vector")
    index = ours.open(stamped)
    (found,) = index.dense.search(content.dense[:1], 20, filter=Not(Eq("colour", "green")))
    assert set(found.ids) == {str(i) for i in range(10)}
    assert found.ids[0] == "0"
    assert found.scores[0] == pytest.approx(1, abs=1e-5)
    stored = index.get(["3"], vectors=True)["3"]
    assert stored.document.metadata == {"colour": "red"}
    assert stored.dense is not None
    np.testing.assert_allclose(stored.dense, content.dense[3], rtol=1e-5)
    ours.close()


def test_one_arm_beside_another_engine(engine: Engine) -> None:
    content = documents(20)
    for number, arm, other in ((1, "dense", "sparse"), (2, "sparse", "dense")):
        made = replace(
            generation(f"demo_2026010100000{number}_0000000{number}"),
            arms=(arm,),
            arms_elsewhere=(other,),
        )
        engine.create(made)
        engine.upsert(made, content)
        engine.seal(made)
        index = engine.open(made)
        assert index.arms == (arm,)
        stored = index.get(["d7"], vectors=True, terms=True)["d7"]
        assert stored.document.metadata == content.documents[7].metadata
        assert stored.document.text == ("" if arm == "dense" else content.documents[7].text)
        assert (stored.dense is None) == (arm == "sparse")
        assert (stored.impacts is None) == (arm == "dense")
        exported = index.export()
        assert bool(exported.dense.any()) == (arm == "dense")
        assert bool(exported.sparse.weights.size) == (arm == "sparse")
        with pytest.raises(EngineError, match=f"has no {other} arm"):
            getattr(index, other).search(getattr(content, other), 3)


def test_a_vector_that_is_not_finite_is_refused(engine: Engine) -> None:
    content = documents(3)
    content.dense[1, 2] = np.nan
    engine.create(generation())
    with pytest.raises(EngineError, match="'d1': its dense vector has NaN"):
        engine.upsert(generation(), content)
    index = engine.open(generation())
    assert index.count() == 0
    with pytest.raises(EngineError, match="a query vector is not finite"):
        index.dense.search(content.dense, 3)
