"""A real Milvus server through the engine layer: arms, generations, errors, time limits."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from steelyard.errors import EngineError, InputError
from steelyard.local_servers.milvus import MilvusProcess
from steelyard.plugin.abilities import Adopts, OpensAsync
from steelyard.plugin.engine import Engine, Generation
from steelyard.plugin.filters import Eq, Range
from steelyard.plugin.urls import open_engine
from steelyard.types import DenseVectors, EncodedDocuments, SparseVectors, l2_normalise
from tests.test_milvus_lite import check_only_read, documents, generation

pytest_plugins = ["tests.servers.milvus"]
pytestmark = [pytest.mark.milvus]

Named = Callable[..., Generation]


@pytest.fixture
def named(milvus_alias: str) -> Named:
    """The generation of ``documents``, by number; dense vectors only, as the server is 2.3."""

    def make(number: int = 1, **changes: Any) -> Generation:
        name = f"{milvus_alias}_2026010100000{number}_0000000{number}"
        return replace(generation(name), **{"arms": ("dense",), **changes})

    return make


def fill(engine: Engine, made: Generation, count: int = 40) -> None:
    engine.create(made)
    engine.upsert(made, documents(count))
    engine.seal(made)
    engine.publish(made)


@pytest.fixture
def filled(milvus_engine: Engine, named: Named) -> Engine:
    fill(milvus_engine, named())
    return milvus_engine


def test_what_is_stored_comes_back(filled: Engine, named: Named, milvus_url: str) -> None:
    found = filled.resolve()
    assert found == named()
    # Another reader sees everything as soon as the writer's seal returned.
    reader = open_engine(milvus_url)
    index, content = reader.open(found), documents(40)
    assert index.arms == ("dense",)
    stored = index.get([d.id for d in content.documents] + ["nobody"], vectors=True, terms=True)
    assert {i: one.document for i, one in stored.items()} == {d.id: d for d in content.documents}
    for row, document in enumerate(content.documents):
        np.testing.assert_array_equal(stored[document.id].dense, content.dense[row])
        assert stored[document.id].impacts is None
    assert index.get(["d7"])["d7"].dense is None
    assert index.get([]) == {}
    assert index.count() == 40
    exported = index.export()
    order = {document.id: row for row, document in enumerate(exported.documents)}
    rows = [order[document.id] for document in content.documents]
    np.testing.assert_array_equal(exported.dense[rows], content.dense)
    assert (len(exported.sparse), exported.sparse.weights.size) == (40, 0)
    reader.close()


def test_the_dense_arm_ranks_by_inner_product(filled: Engine, named: Named) -> None:
    index, content = filled.open(named()), documents(40)
    queries = np.vstack([content.dense[:3] * 3, np.zeros((1, 8), np.float32)])
    answers = index.dense.search(queries, 10)
    assert answers[3].ids == []
    for query, answer in zip(queries[:3], answers, strict=False):
        scores = content.dense @ query
        assert answer.ids == [f"d{i}" for i in np.argsort(-scores)[:10]]
        np.testing.assert_allclose(answer.scores, np.sort(scores)[::-1][:10], rtol=1e-5)
    assert index.dense.search(queries[:1], 4, offset=3)[0].ids == answers[0].ids[3:7]
    assert index.dense.search(queries[3:], 4)[0].ids == []
    few = index.dense.search(queries[:1], 2, filter=Eq("brand", "a"))[0]
    everything = index.dense.search(queries[:1], 40, filter=Eq("brand", "a"))[0]
    assert few.ids == everything.ids[:2]
    assert len(everything.ids) == sum(d.metadata.get("brand") == "a" for d in content.documents)
    terms = SparseVectors.from_rows([(np.array([1], np.int32), np.ones(1, np.float32))], 50)
    with pytest.raises(EngineError, match="has no sparse arm"):
        index.sparse.search(terms, 3)
    with pytest.raises(EngineError, match="has no match arm"):
        index.match.search(["text"], 3)


def test_neighbours_are_found_in_the_graph(milvus_engine: Engine, named: Named) -> None:
    """Enough documents that the server builds HNSW, and many queries in one call."""
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(60, 32))
    dense = l2_normalise(
        (centres[rng.integers(60, size=4000)] + rng.normal(size=(4000, 32))).astype(np.float32)
    )
    made = replace(named(), dims=32, fields={})
    content = [replace(documents(1).documents[0], id=f"d{i}", metadata={}) for i in range(4000)]
    nothing = (np.zeros(0, np.int32), np.zeros(0, np.float32))
    sparse = SparseVectors.from_rows([nothing] * 4000, 50)
    milvus_engine.create(made)
    milvus_engine.upsert(made, EncodedDocuments(content, dense, sparse))
    milvus_engine.seal(made)
    index = milvus_engine.open(made)
    queries = l2_normalise(rng.normal(size=(200, 32)).astype(np.float32))
    best = np.argsort(-(queries @ dense.T), axis=1)[:, :100]
    found = index.dense.search(queries, 100)
    hits = [
        len({f"d{i}" for i in row} & set(one.ids)) for row, one in zip(best, found, strict=True)
    ]
    assert sum(hits) / (100 * len(queries)) >= 0.98
    assert len(index.dense.search(queries[:1], 4000)[0].ids) >= 3900
    assert len(index.get([f"d{i}" for i in range(0, 4000, 3)])) == 1334


def test_of_two_with_one_id_the_last_is_kept(milvus_engine: Engine, named: Named) -> None:
    content = documents(3)
    twice = [replace(d, id="same", text=f"text {i}") for i, d in enumerate(content.documents)]
    milvus_engine.create(named())
    milvus_engine.upsert(named(), EncodedDocuments(twice, content.dense, content.sparse))
    milvus_engine.upsert(named(), EncodedDocuments(twice[:2], content.dense[:2], content.sparse))
    milvus_engine.seal(named())
    index = milvus_engine.open(named())
    assert index.count() == 1
    stored = index.get(["same"], vectors=True)["same"]
    assert stored.document.text == "text 1"
    np.testing.assert_array_equal(stored.dense, content.dense[1])


def test_an_upsert_replaces_and_a_delete_removes(filled: Engine, named: Named) -> None:
    content = documents(40)
    newer = replace(content.documents[7], text="newer")
    filled.upsert(
        named(), EncodedDocuments([newer], content.dense[7:8], content.sparse.select([7]))
    )
    filled.delete(named(), ["d3", "nobody", 'x"] or id != "'])
    filled.seal(named())
    index = filled.open(named())
    assert index.count() == 39
    assert index.get(["d7"])["d7"].document.text == "newer"
    assert "d3" not in index.dense.search(content.dense[3:4], 40)[0].ids


def test_ids_of_any_characters(milvus_engine: Engine, named: Named) -> None:
    ids = [
        "o'brien",
        'say "x"',
        "back\\slash",
        "new\nline",
        "x'] or id != '",
        "é🙂",
        "%_",
        "x" * 512,
    ]
    content = documents(len(ids))
    renamed = [replace(d, id=i) for d, i in zip(content.documents, ids, strict=True)]
    milvus_engine.create(named())
    milvus_engine.upsert(named(), EncodedDocuments(renamed, content.dense, content.sparse))
    milvus_engine.seal(named())
    index = milvus_engine.open(named())
    assert set(index.get(ids)) == set(ids)
    assert {d.id for d in index.export().documents} == set(ids)
    milvus_engine.delete(named(), ids[:-1])
    assert index.count() == 1


def test_the_alias_moves_and_what_it_stands_for_stays(filled: Engine, named: Named) -> None:
    newer = named(2)
    filled.create(newer)
    filled.upsert(newer, documents(3))
    assert filled.resolve() == named()
    filled.seal(newer)
    filled.publish(newer)
    filled.publish(newer)
    assert filled.resolve() == newer
    assert [g.name for g in filled.generations()] == [newer.name, named().name]
    with pytest.raises(EngineError, match="so it stays"):
        filled.drop(newer)
    reader = filled.open(named())
    filled.drop(named())
    filled.drop(named())
    assert [g.name for g in filled.generations()] == [newer.name]
    with pytest.raises(EngineError, match="could not search"):
        reader.dense.search(documents(1).dense, 3)
    with pytest.raises(EngineError, match=f"could not open {named().name}"):
        filled.open(named())
    with pytest.raises(EngineError, match="is another build than was asked for"):
        filled.open(replace(newer, content="other"))


def test_beside_a_lead_engine_texts_are_not_stored_twice(
    milvus_engine: Engine, named: Named, milvus_client: Any
) -> None:
    follower = named(arms_elsewhere=("sparse",))
    fill(milvus_engine, follower)
    described = milvus_client.describe_collection(follower.name)
    columns = {column["name"] for column in described["fields"]}
    assert columns == {"id", "dense"} | {f"{p}_{f}" for p in "mh" for f in follower.fields}
    index, content = milvus_engine.open(follower), documents(40)
    stored = index.get(["d7"], vectors=True)["d7"]
    np.testing.assert_array_equal(stored.dense, content.dense[7])
    assert stored.document.metadata == content.documents[7].metadata
    assert (stored.document.text, stored.document.title) == ("", "")
    found = index.dense.search(content.dense[:1], 40, filter=Range("stock", lt=10))[0]
    assert set(found.ids) == {f"d{i}" for i in range(10) if i % 5 != 4}


def test_what_cannot_be_written_leaves_nothing_behind(
    milvus_engine: Engine, named: Named, capfd: pytest.CaptureFixture[str]
) -> None:
    content = documents(3)
    broken = content.dense.copy()
    broken[1, 2] = np.nan
    long = [content.documents[0], replace(content.documents[1], id="é" * 257)]
    narrow = content.dense[:, :4].copy()
    empty = [replace(content.documents[0], id="")]
    milvus_engine.create(named())
    for batch, message in (
        (
            EncodedDocuments(content.documents, broken, content.sparse),
            "'d1': its dense vector has NaN",
        ),
        (
            EncodedDocuments(long, content.dense[:2], content.sparse),
            "has 514 bytes, engines take 1 to 512",
        ),
        (EncodedDocuments(empty, content.dense[:1], content.sparse), "has 0 bytes"),
        (EncodedDocuments(content.documents, narrow, content.sparse), "of 4 .* which has 8"),
    ):
        with pytest.raises(EngineError, match=message):
            milvus_engine.upsert(named(), batch)
    wrong = replace(content.documents[0], metadata={"stock": "many"})
    with pytest.raises(EngineError, match="could not write to"):
        milvus_engine.upsert(named(), EncodedDocuments([wrong], content.dense[:1], content.sparse))
    milvus_engine.seal(named())
    index = milvus_engine.open(named())
    assert index.count() == 0
    assert index.dense.search(content.dense[:1], 3)[0].ids == []
    with pytest.raises(EngineError, match=r"queries of 4 dimensions .* which has 8"):
        index.dense.search(narrow, 3)
    with pytest.raises(EngineError, match="a query vector is not finite"):
        index.dense.search(broken, 3)
    with pytest.raises(InputError, match="Milvus gives 1 to 16,384"):
        index.dense.search(content.dense, 16000, offset=1000)
    with pytest.raises(EngineError, match=f"there is a collection {named().name} already"):
        milvus_engine.create(named())
    assert capfd.readouterr() == ("", "")


def test_sparse_vectors_need_a_newer_server(milvus_engine: Engine, named: Named) -> None:
    with pytest.raises(EngineError, match=r"Milvus v2\.3\.5.* has no sparse .* in 2\.4"):
        milvus_engine.create(named(arms=("dense", "sparse")))
    assert milvus_engine.generations() == []


def test_very_long_texts_are_cut_for_display_only(milvus_engine: Engine, named: Named) -> None:
    content = documents(1)
    long = replace(content.documents[0], text="é" * 40_000)
    milvus_engine.create(named())
    milvus_engine.upsert(named(), EncodedDocuments([long], content.dense, content.sparse))
    milvus_engine.seal(named())
    stored = milvus_engine.open(named()).get(["d0"])["d0"].document.text
    assert stored == "é" * 32_767


def test_an_index_of_someone_else_is_not_taken_for_ours(
    milvus_engine: Engine, milvus_alias: str, milvus_client: Any, milvus_address: str
) -> None:
    assert milvus_engine.resolve() is None
    milvus_client.create_collection(milvus_alias, dimension=4)
    with pytest.raises(EngineError, match="is a collection here, not an alias"):
        milvus_engine.resolve()
    with pytest.raises(EngineError, match="is a collection here, not an alias"):
        milvus_engine.publish(generation())
    milvus_client.create_alias(milvus_alias, f"{milvus_alias}_theirs")
    theirs = open_engine(f"milvus://{milvus_address}/{milvus_alias}_theirs")
    with pytest.raises(EngineError, match="does not carry Steelyard's description"):
        theirs.resolve()
    theirs.close()


def their_rows(count: int) -> list[dict[str, Any]]:
    content = documents(count)
    return [
        {
            "pk": 100 + i,
            "vector": (content.dense[i] * (1 + i)).tolist(),
            "headline": f"title {i}",
            "colour": "red" if i % 2 else "green",
            **({"size": i} if i % 3 else {}),
        }
        for i in range(count)
    ]


async def find_asynchronously(
    opens: OpensAsync, made: Generation, query: DenseVectors
) -> Sequence[str]:
    try:
        index = await opens.open_async(made)
        return (await index.dense.search(query, 5, timeout=30))[0].ids
    finally:
        await opens.close_async()


def test_a_collection_of_numbers_and_cosines_is_adopted(
    milvus_engine: Engine,
    milvus_alias: str,
    milvus_client: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = f"{milvus_alias}Theirs"
    milvus_client.create_collection(
        theirs, dimension=8, primary_field_name="pk", metric_type="COSINE"
    )
    milvus_client.insert(theirs, their_rows(30))
    milvus_client.flush(theirs)
    asked = replace(
        generation(theirs),
        dims=0,
        arms=("dense",),
        fields={"colour": "keyword", "size": "int"},
        columns={"title": "headline"},
    )
    assert isinstance(milvus_engine, Adopts)
    stamped = milvus_engine.adopt(asked)
    milvus_engine.publish(stamped)
    assert (stamped.dims, stamped.name) == (8, theirs)
    assert stamped.columns == {
        "id": "pk", "dense": "vector", "title": "headline", "colour": "colour", "size": "size",
    }  # fmt: skip
    assert milvus_engine.resolve() == stamped
    index, content = milvus_engine.open(stamped), documents(30)
    assert index.count() == 30
    query = content.dense[3:4] * 2
    (found,) = index.dense.search(query, 5)
    expected = content.dense @ query[0]
    order = np.argsort(-expected)[:5]
    assert found.ids == [str(100 + i) for i in order]
    np.testing.assert_allclose(found.scores, expected[order], rtol=1e-5)
    stored = index.get(["103", "nobody", "0103", "9" * 30], vectors=True)
    assert set(stored) == {"103"}
    assert stored["103"].document.title == "title 3"
    assert stored["103"].document.metadata == {"colour": "red"}
    vector = stored["103"].dense
    assert vector is not None
    np.testing.assert_allclose(vector, content.dense[3], rtol=1e-5)
    red = index.dense.search(query, 30, filter=Eq("colour", "red"))[0]
    assert set(red.ids) == {str(100 + i) for i in range(1, 30, 2)}
    few = index.dense.search(query, 30, filter=Range("size", gte=20))[0]
    assert set(few.ids) == {str(100 + i) for i in range(20, 30) if i % 3}
    assert len(index.export()) == 30
    assert isinstance(milvus_engine, OpensAsync)
    with monkeypatch.context() as patch:
        # The event loop must not wait for requests of the other client.
        patch.setattr(milvus_engine, "connection", None)
        assert asyncio.run(find_asynchronously(milvus_engine, stamped, query)) == found.ids
    check_only_read(milvus_engine, stamped)
    assert milvus_engine.open(stamped).count() == 30
    milvus_engine.publish(milvus_engine.adopt(replace(asked, dense_space="dense-y")))
    again = milvus_engine.resolve()
    assert again is not None
    assert again.dense_space == "dense-y"


def test_what_cannot_be_adopted_is_left_as_it_was(
    milvus_engine: Engine, milvus_alias: str, milvus_client: Any, named: Named
) -> None:
    assert isinstance(milvus_engine, Adopts)
    adopt = milvus_engine.adopt
    theirs, far = f"{milvus_alias}Theirs", f"{milvus_alias}Far"
    milvus_client.create_collection(theirs, dimension=8, metric_type="IP")
    milvus_client.create_collection(far, dimension=8, metric_type="L2")
    asked = replace(generation(theirs), arms=("dense",), fields={})
    for changes, message in (
        ({"name": "nothing_here"}, "no collection 'nothing_here'"),
        ({"dims": 384}, "has vectors of 8 dimensions, the pack 384"),
        ({"name": far}, "compares by L2, Steelyard by IP or COSINE"),
        ({"arms": ("dense", "sparse")}, "not dense and sparse"),
        ({"columns": {"dense": "id"}}, "no column 'id' of float32 vectors"),
        ({"columns": {"id": "vector"}}, "is 'id', not 'vector'"),
        ({"columns": {"size": "size"}}, "'size' is none of our fields"),
        ({"fields": {"vector": "int"}}, r"is no vector \(int\)"),
    ):
        with pytest.raises(EngineError, match=message):
            adopt(replace(asked, **changes))
    assert milvus_engine.resolve() is None
    assert milvus_client.describe_collection(theirs)["properties"] == {}
    fill(milvus_engine, named())
    with pytest.raises(EngineError, match="was written by Steelyard"):
        adopt(named())


def test_reading_asynchronously(filled: Engine, named: Named) -> None:
    assert isinstance(filled, OpensAsync)
    asyncio.run(read_asynchronously(filled, filled, named()))
    asyncio.run(read_asynchronously(filled, filled, named()))


async def read_asynchronously(filled: Engine, opens: OpensAsync, made: Generation) -> None:
    index, content = filled.open(made), documents(40)
    queries = np.vstack([content.dense[:3], np.zeros((1, 8), np.float32)])
    awaited = await opens.open_async(made)
    assert (awaited.generation, awaited.arms) == (made, ("dense",))
    found = await awaited.dense.search(queries, 5, filter=Eq("sale", True), offset=1, timeout=30)
    for one, other in zip(
        found, index.dense.search(queries, 5, filter=Eq("sale", True), offset=1), strict=True
    ):
        assert one.ids == other.ids
        np.testing.assert_array_equal(one.scores, other.scores)
    stored = await awaited.get(["d7", "nobody"], vectors=True, timeout=30)
    assert stored["d7"].document == content.documents[7]
    np.testing.assert_array_equal(stored["d7"].dense, content.dense[7])
    with pytest.raises(EngineError, match="has no sparse arm"):
        await awaited.sparse.search(content.sparse, 5)
    with pytest.raises(EngineError, match="of 4 dimensions"):
        await awaited.dense.search(content.dense[:, :4].copy(), 5)
    await opens.close_async()
    await opens.close_async()


@contextmanager
def halted(server: MilvusProcess) -> Iterator[None]:
    """The server does nothing, its connections stay open."""
    os.killpg(server.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, server.pid, os.WSTOPPED)  # until the last of its threads has stopped
    try:
        yield
    finally:
        os.killpg(server.pid, signal.SIGCONT)


@pytest.mark.timeout(120)
def test_a_server_that_hangs_costs_no_more_than_the_time_limit(
    filled: Engine,
    named: Named,
    milvus_server: MilvusProcess,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert isinstance(filled, OpensAsync)
    asyncio.run(search_while_it_hangs(filled, filled, named(), milvus_server))
    assert capfd.readouterr() == ("", "")


async def search_while_it_hangs(
    filled: Engine, opens: OpensAsync, made: Generation, server: MilvusProcess
) -> None:
    index, query = filled.open(made), documents(1).dense
    awaited = await opens.open_async(made)
    before = index.dense.search(query, 3, timeout=30)[0].ids
    assert (await awaited.dense.search(query, 3, timeout=30))[0].ids == before
    with halted(server):
        for seconds in (0.3, 0.0):
            with pytest.raises(EngineError, match=f"cannot search .* within {seconds:g} s"):
                index.dense.search(query, 3, timeout=seconds)
        with pytest.raises(EngineError, match=r"cannot read .* within 0\.3 s"):
            index.get(["d1"], timeout=0.3)
        with pytest.raises(EngineError, match=r"cannot search .* within 0\.3 s"):
            await awaited.dense.search(query, 3, timeout=0.3)
        with pytest.raises(EngineError, match=r"cannot read .* within 0\.3 s"):
            await awaited.get(["d1"], timeout=0.3)
    assert index.dense.search(query, 3, timeout=60)[0].ids == before
    assert (await awaited.dense.search(query, 3, timeout=60))[0].ids == before
    await opens.close_async()


def test_many_threads_share_an_index(filled: Engine, named: Named) -> None:
    index, content = filled.open(named()), documents(40)
    expected = [one.ids for one in index.dense.search(content.dense, 5)]
    wrong: list[object] = []

    def work(start: int) -> None:
        for i in range(start, start + 20):
            row = i % 40
            found = index.dense.search(content.dense[row : row + 1], 5, timeout=60)[0].ids
            if found != expected[row]:
                wrong.append((row, found))

    threads = [threading.Thread(target=work, args=(5 * i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
