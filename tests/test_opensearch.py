"""OpenSearch through the engine layer, on a real node: both arms, generations, filters, errors."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from steelyard.errors import EngineError, InputError, PackMismatchError
from steelyard.indexer.load import LoadReport, exact_index, load_shards
from steelyard.plugin import searcher as searcher_module
from steelyard.plugin.engine import Candidates, Engine
from steelyard.plugin.filters import And, Eq, Exists, Filter, In, Not, Or, Range
from steelyard.plugin.ranking import rank
from steelyard.plugin.searcher import Searcher
from steelyard.plugin.urls import open_engine
from steelyard.plugin.vocabulary import Vocabulary
from steelyard.progress import SilentProgress
from steelyard.types import EncodedDocuments, SparseVectors
from tests.conftest import SCIFACT, Small
from tests.servers.opensearch_node import ask
from tests.test_cli import fails, ok
from tests.test_milvus_lite import BRANDS, documents, generation

pytest_plugins = ["tests.servers.opensearch"]
pytestmark = [pytest.mark.opensearch]

FLOAT32 = 2e-6
"""Impacts up to 512 are exact in rank_features, so that sums differ by float32's rounding only."""

HOSTILE = [
    'say "x" \\ {"match_all": {}}',
    "* OR _exists_:id AND (a/b) ~!^",
    "a\u0000b \u200d\u200b",
    "\ud800 lone",
    "🚀 東京都 العربية",
    "[SEP] heavy [UNK]",
    "x" * 3000,
    "heart " * 5000,
    "' ; DROP",
    "\r\n{}\r\n",
]


class Words:
    """A vocabulary of fifty, whose first strings are awkward as keys."""

    texts = ("", ".", " ", "a.b", "Ġx", "..", '"', "\\", "é🙂", *(f"t{i}" for i in range(9, 50)))

    def id_to_token(self, id: int, /) -> str | None:
        return self.texts[id] if id < len(self.texts) else None

    def token_to_id(self, token: str, /) -> int | None:
        return self.texts.index(token) if token in self.texts else None


Opener = Callable[..., Engine]
_ALIASES = count()


@pytest.fixture
def alias() -> str:
    return f"demo{next(_ALIASES)}"


@pytest.fixture
def url(opensearch_url: str, alias: str) -> Iterator[str]:
    """An alias of the test's own; its indexes are gone afterwards."""
    yield f"opensearch://{urlsplit(opensearch_url).netloc}/{alias}"
    for name in ask(opensearch_url, "GET", f"/{alias}*/_settings?expand_wildcards=all"):
        ask(opensearch_url, "DELETE", f"/{name}")


@pytest.fixture
def opener(url: str) -> Iterator[Opener]:
    """Opens the test's alias, and closes what it opened."""
    opened: list[Engine] = []

    def opening(vocabulary: Vocabulary | None) -> Engine:
        opened.append(open_engine(url, vocabulary=vocabulary))
        return opened[-1]

    yield opening
    for made in opened:
        made.close()


@pytest.fixture
def named(alias: str) -> Any:
    """The generation of ``documents``, by number."""
    return lambda number=1: generation(f"{alias}_2026010100000{number}_0000000{number}")


@pytest.fixture
def filled(opener: Opener, named: Any) -> Engine:
    engine = opener(Words())
    engine.create(named())
    engine.upsert(named(), documents(40))
    engine.seal(named())
    engine.publish(named())
    return engine


def load(small: Small, engine: Engine, second: int = 0, **more: Any) -> LoadReport:
    """The small collection; another ``second`` is another content."""
    moment = datetime(2026, 1, 1, 0, 0, second, tzinfo=timezone.utc)
    made = small.made
    plan = made.manifest.plan.model_copy(update={"fields": {f"field{second}": "int"}})
    manifest = made.manifest.model_copy(update={"plan": plan})
    return load_shards(
        manifest, made.shards, made.metadata, engine, SilentProgress(), now=lambda: moment, **more
    )


def agree(found: Candidates, expected: Candidates, tolerance: float) -> float:
    """The same documents and scores, so the same ranking but for ties; the largest difference."""
    wanted = dict(zip(expected.ids, expected.scores.tolist(), strict=True))
    assert set(found.ids) == set(wanted)
    in_order = np.array([wanted[i] for i in found.ids])
    assert (np.diff(in_order) <= 2 * tolerance).all()
    difference = float(np.abs(found.scores - in_order).max(initial=0.0))
    assert difference <= tolerance
    return difference


def questions(number: int) -> list[str]:
    lines = (SCIFACT / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines[: 50 * number : 50]]


def test_what_is_stored_comes_back(filled: Engine, named: Any) -> None:
    found = filled.resolve()
    assert found == named()
    index, content = filled.open(named()), documents(40)
    assert index.count() == 40
    stored = index.get(["d7", "nobody", "d4"], vectors=True)
    assert set(stored) == {"d7", "d4"}
    for identifier, row in (("d7", 7), ("d4", 4)):
        assert stored[identifier].document == content.documents[row]
        np.testing.assert_array_equal(stored[identifier].dense, content.dense[row])
    assert index.get(["d7"])["d7"].dense is None
    assert index.get([]) == {}
    exported = index.export()
    order = {document.id: row for row, document in enumerate(exported.documents)}
    rows = [order[document.id] for document in content.documents]
    np.testing.assert_array_equal(exported.dense[rows], content.dense)
    sparse = exported.sparse.select(rows)
    np.testing.assert_array_equal(sparse.ids, content.sparse.ids)
    np.testing.assert_array_equal(
        sparse.weights, np.floor(content.sparse.weights * np.float32(100))
    )


def test_both_arms_are_inner_products(filled: Engine, named: Any) -> None:
    index, content = filled.open(named()), documents(40)
    queries = np.vstack([content.dense[:3] * 3, np.zeros((1, 8), np.float32)])
    answers = index.dense.search(queries, 40)
    assert answers[3].ids == []
    for query, answer in zip(queries[:3], answers, strict=False):
        products = content.dense @ query
        assert products.min() < 0
        expected = Candidates([d.id for d in content.documents], products.astype(np.float64))
        agree(answer, expected, 1e-6)
    page = index.dense.search(queries[:1], 4, offset=3)[0]
    assert page.ids == answers[0].ids[3:7]

    impacts = np.floor(content.sparse.to_csr().toarray() * np.float32(100)) / 100
    rows = [
        (np.arange(50, dtype=np.int32), np.linspace(0.01, 200, 50, dtype=np.float32)),
        (np.zeros(0, np.int32), np.zeros(0, np.float32)),
        (np.array([3], np.int32), np.array([1e-42], np.float32)),
        (np.arange(10, dtype=np.int32), np.ones(10, np.float32)),
    ]
    found = index.sparse.search(SparseVectors.from_rows(rows, 50), 40)
    assert found[1].ids == found[2].ids == []
    for answer, (ids, weights) in ((found[0], rows[0]), (found[3], rows[3])):
        sums = impacts[:, ids] @ weights
        positive = {f"d{i}": s for i, s in enumerate(sums.tolist()) if s > 0}
        best = Candidates(list(positive), np.array(list(positive.values())))
        agree(answer, best, FLOAT32 * sums.max())


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Eq("brand", BRANDS[1]), lambda d: d.get("brand") == BRANDS[1]),
        (In("brand", BRANDS[1:]), lambda d: d.get("brand") in BRANDS[1:]),
        (In("stock", [3, 5]), lambda d: d.get("stock") in (3, 5)),
        (Range("price", gte=5, lt=10), lambda d: 5 <= d.get("price", -1) < 10),
        (Range("stock", gte=3, gt=5, lte=9, lt=20), lambda d: 5 < d.get("stock", -1) <= 9),
        (Exists("price"), lambda d: "price" in d),
        (Not(Exists("price")), lambda d: "price" not in d),
        (Not(Eq("brand", "a")), lambda d: d.get("brand") != "a"),
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
def test_filters_act_inside_both_arms(
    filled: Engine, named: Any, condition: Filter, expected: Any
) -> None:
    index, content = filled.open(named()), documents(40)
    wanted = {d.id for d in content.documents if expected(dict(d.metadata))}
    assert 0 < len(wanted) < 40
    found = index.dense.search(content.dense[:1], 40, filter=condition)[0]
    assert set(found.ids) == wanted
    few = index.dense.search(content.dense[:1], 2, filter=condition)[0]
    assert few.ids == found.ids[:2]
    everything = SparseVectors.from_rows(
        [(np.arange(50, dtype=np.int32), np.ones(50, np.float32))], 50
    )
    with_terms = {f"d{i}" for i in range(40) if i % 4}
    assert set(index.sparse.search(everything, 40, filter=condition)[0].ids) == wanted & with_terms


def test_filters_that_cannot_be(filled: Engine, named: Any) -> None:
    index, dense = filled.open(named()), documents(1).dense
    assert index.dense.search(dense, 3, filter=In("brand", []))[0].ids == []
    for condition, message in (
        (Eq("colour", "red"), "no metadata field 'colour'"),
        (And([]), "an empty And"),
        (Range("price"), "without a bound"),
        (In("brand", ["x"] * 70_000), "70,000 values"),
    ):
        with pytest.raises(InputError, match=message):
            index.dense.search(dense, 3, filter=condition)
    with pytest.raises(EngineError, match=r'number_format_exception.*"abc"'):
        index.dense.search(dense, 3, filter=Eq("price", "abc"))


def test_an_upsert_replaces_and_a_delete_removes(filled: Engine, named: Any) -> None:
    content = documents(40)
    newer = replace(content.documents[7], text="newer")
    batch = EncodedDocuments([newer], content.dense[7:8], content.sparse.select([7]))
    filled.upsert(named(), batch)
    filled.delete(named(), ["d3", "nobody"])
    filled.seal(named())
    index = filled.open(named())
    assert index.count() == 39
    assert index.get(["d7"])["d7"].document.text == "newer"
    assert "d3" not in index.dense.search(content.dense[3:4], 40)[0].ids


def test_ids_of_any_characters(opener: Opener, named: Any) -> None:
    ids = [
        "o'brien",
        'say "x"',
        "a\\'b",
        "new\nline",
        "_all",
        "*",
        "../x?y=1#z",
        "é🙂",
        "%2F",
        " ",
    ]
    ids.append("é" * 256)
    content = documents(len(ids))
    titled = [replace(d, id=i) for d, i in zip(content.documents, ids, strict=True)]
    engine = opener(Words())
    engine.create(named())
    engine.upsert(named(), EncodedDocuments(titled, content.dense, content.sparse))
    engine.seal(named())
    index = engine.open(named())
    assert set(index.get(ids)) == set(ids)
    assert set(index.dense.search(content.dense[:1], 20)[0].ids) == set(ids)
    assert {d.id for d in index.export().documents} == set(ids)
    for left, identifier in zip(range(len(ids) - 1, -1, -1), ids, strict=True):
        engine.delete(named(), [identifier])
        engine.seal(named())
        assert index.count() == left


def test_refused_documents_are_named(opener: Opener, named: Any) -> None:
    engine, content = opener(Words()), documents(40)
    engine.create(named())
    engine.create(named())  # the same again, as after an answer that was lost
    with pytest.raises(EngineError, match="already exists"):
        engine.create(replace(named(), content="another"))
    wrong = [
        replace(d, metadata={"stock": "many"}) if i in (3, 5) else d
        for i, d in enumerate(content.documents)
    ]
    with pytest.raises(EngineError, match=r"refuses 2 of 40 documents: 'd3': .*stock.*many"):
        engine.upsert(named(), EncodedDocuments(wrong, content.dense, content.sparse))
    long = [replace(content.documents[0], id="x" * 513)]
    batch = EncodedDocuments(long, content.dense[:1], content.sparse.select([0]))
    with pytest.raises(EngineError, match=r"cannot write to .*: id \[x+"):
        engine.upsert(named(), batch)


def test_the_alias_moves_and_what_it_stands_for_stays(filled: Engine, named: Any) -> None:
    newer = named(2)
    filled.create(newer)
    filled.upsert(newer, documents(3))
    assert filled.resolve() == named()
    filled.publish(newer)
    filled.publish(newer)
    assert filled.resolve() == newer
    assert filled.generations() == [newer, named()]
    with pytest.raises(EngineError, match="so it stays"):
        filled.drop(newer)
    reader = filled.open(named())
    filled.drop(named())
    filled.drop(named())
    assert filled.generations() == [newer]
    for reading in (lambda: reader.get(["d1"]), reader.count, reader.export):
        with pytest.raises(EngineError, match="index_not_found"):
            reading()
    with pytest.raises(EngineError, match="index_not_found"):
        reader.dense.search(documents(1).dense, 3)
    with pytest.raises(EngineError, match="not in this cluster"):
        filled.open(named())
    with pytest.raises(EngineError, match="index_not_found"):
        filled.publish(named(3))
    assert filled.resolve() == newer
    with pytest.raises(EngineError, match="is no generation of"):
        filled.drop(replace(newer, name="*"))


def test_wrong_sizes_are_refused_with_both_numbers(filled: Engine, named: Any) -> None:
    content = documents(2)
    narrow = EncodedDocuments(content.documents, content.dense[:, :4].copy(), content.sparse)
    with pytest.raises(EngineError, match=r"vectors of 4 dimensions .* which has 8"):
        filled.upsert(named(), narrow)
    index = filled.open(named())
    with pytest.raises(EngineError, match=r"queries of 4 dimensions .* which has 8"):
        index.dense.search(content.dense[:, :4].copy(), 3)
    with pytest.raises(EngineError, match=r"queries of 7 columns .* which has 50"):
        index.sparse.search(SparseVectors.from_rows([], 7), 3)
    with pytest.raises(InputError, match="OpenSearch gives 1 to 10,000"):
        index.dense.search(content.dense, 9000, offset=1001)


def test_another_tokenizer_is_recognised(filled: Engine, opener: Opener, named: Any) -> None:
    class Others(Words):
        texts = tuple(f"o{i}" for i in range(50))

    with pytest.raises(EngineError, match="token 2 is 'o2' in the pack's tokenizer and ' ' in"):
        opener(Others()).open(named())
    without = opener(None).open(named())
    assert without.count() == 40
    assert len(without.dense.search(documents(1).dense, 5)[0].ids) == 5
    with pytest.raises(EngineError, match="opened without a vocabulary"):
        without.sparse.search(documents(2).sparse, 5)


def test_indexes_of_someone_else_are_not_taken_for_ours(
    opensearch_url: str, filled: Engine, opener: Opener, alias: str, named: Any
) -> None:
    ask(opensearch_url, "PUT", f"/{alias}_theirs", {"aliases": {alias: {}}})
    with pytest.raises(EngineError, match="stands for 2 indexes") as caught:
        opener(None).resolve()
    assert caught.value.hint == "remove it from all but one"
    filled.delete(named(), ["d1"])
    ask(opensearch_url, "POST", "/_aliases", {
        "actions": [{"remove": {"index": named().name, "alias": alias}}]
    })  # fmt: skip
    with pytest.raises(EngineError, match="does not carry Steelyard's description"):
        filled.publish(named())
    ask(opensearch_url, "DELETE", f"/{alias}_theirs")
    ask(opensearch_url, "PUT", f"/{alias}", {})
    with pytest.raises(EngineError, match="is an index here, not an alias"):
        filled.publish(named())


def test_long_queries(opensearch_url: str, opener: Opener, named: Any) -> None:
    class Many:
        def id_to_token(self, id: int, /) -> str | None:
            return f"t{id}"

        def token_to_id(self, token: str, /) -> int | None:
            return int(token[1:])

    wide = replace(named(), vocabulary_size=5000, fields={})
    engine = opener(Many())
    engine.create(wide)
    content = documents(2)
    ids = np.arange(5000, dtype=np.int32)
    rows = [(ids[:2000], np.full(2000, 2, np.float32)), (ids[2000:], np.ones(3000, np.float32))]
    plain = [replace(d, metadata={}) for d in content.documents]
    batch = EncodedDocuments(plain, content.dense, SparseVectors.from_rows(rows, 5000))
    assert engine.upsert(wide, batch) == 0
    engine.seal(wide)
    query = SparseVectors.from_rows([(ids, (1 + ids / 5000).astype(np.float32))], 5000)
    index = engine.open(wide)
    (found,) = index.sparse.search(query, 5)
    heaviest = query.heaviest(512).row(0)[1]
    assert found.ids == ["d1"]
    assert found.scores[0] == pytest.approx(float(heaviest.sum()), rel=1e-6)
    setting = "indices.query.bool.max_clause_count"
    ask(opensearch_url, "PUT", "/_cluster/settings", {"transient": {setting: 100}})
    try:
        with pytest.raises(EngineError, match="cannot search") as caught:
            index.sparse.search(query, 5)
        assert "raise indices.query.bool.max_clause_count" in caught.value.hint
    finally:
        ask(opensearch_url, "PUT", "/_cluster/settings", {"transient": {setting: None}})


def test_arms_rank_as_exact_search_does(small: Small, opener: Opener) -> None:
    engine = opener(small.encoder.tokenizer)
    report = load(small, engine)
    assert report.documents == 120
    assert load(small, engine).reused
    found = engine.resolve()
    assert found is not None
    index, made = engine.open(found), small.made
    exact = exact_index(made.manifest, made.shards, made.metadata)
    queries = small.encoder.encode_query([*questions(20), *HOSTILE, "", "🙂"])
    dense = [
        agree(ours, theirs, 1e-6)
        for ours, theirs in zip(
            index.dense.search(queries.dense, 1000),
            exact.dense.search(queries.dense, 1000),
            strict=True,
        )
    ]
    short = queries.sparse.heaviest(512)
    sparse = [
        agree(ours, theirs, FLOAT32 * max(1.0, float(theirs.scores.max(initial=0.0))))
        for ours, theirs in zip(
            index.sparse.search(queries.sparse, 1000),
            exact.sparse.search(short, 1000),
            strict=True,
        )
    ]
    print(f"scores differ by {max(dense):.1e} (dense), {max(sparse):.1e} (sparse)")


@pytest.mark.parametrize("feedback", [0, 3])
def test_the_searcher_ranks_as_other_engines_do(
    small: Small, opener: Opener, engine: Engine, feedback: int
) -> None:
    """The same hits as Milvus Lite's (``engine``) and as exact search in memory."""
    encoder = small.encoder
    ours, theirs = opener(encoder.tokenizer), engine
    load(small, ours)
    load(small, theirs)
    made = small.made
    exact = exact_index(made.manifest, made.shards, made.metadata)
    texts = questions(20)
    here, there = Searcher(encoder, ours), Searcher(encoder, theirs)
    with ThreadPoolExecutor(1) as threads:
        rankings = rank(
            exact, encoder.encode_query(texts), here.fusion, 1000, threads, feedback=feedback
        )
    same = 0
    for text, ranking in zip(texts, rankings, strict=True):
        hits = here.search(text, 120, feedback=feedback).hits
        found = Candidates([h.id for h in hits], np.array([h.score for h in hits]))
        fused = ranking.fused
        agree(found, Candidates(fused.ids[:120], fused.scores[:120]), 1e-5)
        milvus = there.search(text, 10, feedback=feedback).hits
        same += [h.id for h in milvus] == found.ids[:10]
        page = here.search(text, 5, offset=3, feedback=feedback).hits
        assert [h.id for h in page] == found.ids[3:8]
        assert [h.document for h in milvus] == [h.document for h in hits[:10]]
    print(f"feedback {feedback}: the same ten as Milvus Lite's on {same} of {len(texts)} queries")
    assert same == len(texts)
    for text in HOSTILE:
        assert here.search(text, 5, feedback=feedback).generation
    for text in ("", "🙂", "\x00"):
        nothing = here.search(text, feedback=feedback)
        assert nothing.empty
        assert nothing.hits == []


def test_a_reader_sees_no_gap_while_generations_change(
    small: Small, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = small.encoder
    writer = opener(encoder.tokenizer)
    names = [load(small, writer, 0).generation]
    text = questions(1)[0]
    stale = Searcher(encoder, opener(encoder.tokenizer))
    before = [hit.id for hit in stale.search(text, 10).hits]
    monkeypatch.setattr(searcher_module, "RESOLVE_SECONDS", 0.0)
    stop, seen, failures = threading.Event(), [], []

    def read() -> None:
        reader = Searcher(encoder, opener(encoder.tokenizer))
        try:
            while not stop.is_set():
                answer = reader.search(text, 10, feedback=3)
                if answer.generation not in seen:
                    seen.append(answer.generation)
                if len(answer.hits) != 10:
                    failures.append(f"{len(answer.hits)} hits")
        except Exception as error:  # told by the test, which runs in another thread
            failures.append(repr(error))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for second in (1, 2, 3):
            report = load(small, writer, second, keep=0)
            names.append(report.generation)
            assert report.dropped == [names[-2]]
    finally:
        stop.set()
        thread.join()
    assert failures == []
    assert set(seen) <= set(names)
    assert seen == sorted(seen)
    monkeypatch.setattr(searcher_module, "RESOLVE_SECONDS", 1e9)
    after = stale.search(text, 10)  # its generation has been dropped meanwhile
    assert after.generation == names[-1]
    assert [hit.id for hit in after.hits] == before
    assert [g.name for g in writer.generations()] == [names[-1]]


def test_a_failed_load_leaves_the_alias(small: Small, opener: Opener) -> None:
    engine, made = opener(small.encoder.tokenizer), small.made
    first = load(small, engine).generation
    changed = made.manifest.model_copy(update={"encoded": 121})
    with pytest.raises(EngineError, match="counts 120 documents, 121 were sent"):
        load_shards(changed, made.shards, made.metadata, engine, SilentProgress())
    assert [g.name for g in engine.generations()] == [first]
    spaces = replace(made.metadata.spaces, sparse="sparse-0")
    with pytest.raises(PackMismatchError, match="sparse-0"):
        load_shards(
            made.manifest,
            made.shards,
            replace(made.metadata, spaces=spaces),
            engine,
            SilentProgress(),
        )
    other = small.encoder
    other.metadata = replace(made.metadata, spaces=spaces)
    with pytest.raises(PackMismatchError, match="sparse-0"):
        Searcher(other, engine).search("heart")


def test_from_the_command_line(small: Small, url: str, tmp_path: Path) -> None:
    report, hits, results = (tmp_path / f"{n}.json" for n in ("index", "hits", "eval"))
    to = ["--pack", small.pack, "--to", url]
    ok("index", small.corpus, *to, "--json", report)
    assert json.loads(report.read_text(encoding="utf-8"))["indexed"] == 120
    title = json.loads((small.corpus / "corpus.jsonl").read_text(encoding="utf-8").split("\n")[2])
    assert title["title"] in ok("search", title["title"], *to, "--feedback", 3, "--json", hits)
    first = json.loads(hits.read_text(encoding="utf-8"))["hits"][0]
    assert first["document"]["title"] == title["title"]
    figures = []
    for search in ("exact", "engine"):
        ok("eval", small.corpus, *to, "--systems", "lookup,bm25,lookup+bm25",
           "--search", search, "--json", results)  # fmt: skip
        rows = json.loads(results.read_text(encoding="utf-8"))["rows"]
        figures.append([(row["system"], row["ndcg@10"], row["recall@100"]) for row in rows])
    assert figures[0] == figures[1]
    fails(4, "no index 'nobody'", "search", "x", "--pack", small.pack, "--to",
          url.rsplit("/", 1)[0] + "/nobody")  # fmt: skip
    fails(4, "no answer from localhost:1:", "search", "x", "--pack", small.pack, "--to",
          "opensearch://localhost:1/demo")  # fmt: skip
