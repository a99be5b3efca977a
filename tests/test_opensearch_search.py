"""A real collection in a real OpenSearch: ranked as by other engines, re-indexed, and the CLI."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steelyard.errors import EngineError, PackMismatchError
from steelyard.eval.results import read_result
from steelyard.indexer.loading.load import exact_index, load_shards
from steelyard.indexer.loading.sink import LoadReport
from steelyard.plugin.abilities import SearchesBoth
from steelyard.plugin.engine import Candidates, Engine
from steelyard.plugin.fusion import Fusion
from steelyard.plugin.ranking import rank
from steelyard.plugin.searcher import Searcher
from steelyard.progress import SilentProgress
from tests.conftest import SCIFACT, Small
from tests.servers.opensearch_words import FLOAT32, Opener, agree
from tests.test_cli import fails, ok

pytest_plugins = ["tests.servers.opensearch", "tests.servers.opensearch_alias"]
pytestmark = [pytest.mark.opensearch]

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


def load(small: Small, engine: Engine, second: int = 0, **more: Any) -> LoadReport:
    """The small collection; another ``second`` is another content."""
    moment = datetime(2026, 1, 1, 0, 0, second, tzinfo=timezone.utc)
    made = small.made
    plan = made.manifest.plan.model_copy(update={"fields": {f"field{second}": "int"}})
    manifest = made.manifest.model_copy(update={"plan": plan})
    return load_shards(
        manifest, made.shards, made.metadata, engine, SilentProgress(), now=lambda: moment, **more
    )


def questions(number: int) -> list[str]:
    lines = (SCIFACT / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines[: 50 * number : 50]]


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


def test_both_arms_in_one_request_are_the_arms(small: Small, opener: Opener) -> None:
    """As a searcher with few candidates asks: also without a term, or without a known token."""
    engine = opener(small.encoder.tokenizer)
    load(small, engine)
    found = engine.resolve()
    assert found is not None
    index = engine.open(found)
    assert isinstance(index, SearchesBoth)
    for text in [*questions(10), *HOSTILE, "", "🙂"]:
        encoded = small.encoder.encode_query([text])
        both = index.search_both(encoded.dense, encoded.sparse, 40)
        for arm, expected in (
            ("dense", index.dense.search(encoded.dense, 40)),
            ("sparse", index.sparse.search(encoded.sparse, 40)),
        ):
            answer = both[arm]
            assert not isinstance(answer, EngineError)
            assert answer[0].ids == expected[0].ids
            np.testing.assert_array_equal(answer[0].scores, expected[0].scores)


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
            exact, encoder.encode_query(texts), Fusion(), 1000, threads, feedback=feedback
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


def test_a_reader_sees_no_gap_while_generations_change(small: Small, opener: Opener) -> None:
    encoder = small.encoder
    writer = opener(encoder.tokenizer)
    names = [load(small, writer, 0).generation]
    text = questions(1)[0]
    stale = Searcher(encoder, opener(encoder.tokenizer), resolve_every=1e9)
    before = [hit.id for hit in stale.search(text, 10).hits]
    stop, seen, failures = threading.Event(), [], []

    def read() -> None:
        reader = Searcher(encoder, opener(encoder.tokenizer), resolve_every=0)
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
            report = load(small, writer, second, keep=0, grace=0.0)
            names.append(report.generation)
            assert report.dropped == [names[-2]]
    finally:
        stop.set()
        thread.join()
    assert failures == []
    assert set(seen) <= set(names)
    assert seen == sorted(seen)
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
        ok("eval", small.corpus, *to, "--systems", "lookup,match,lookup+bm25+match",
           "--search", search, "--json", results)  # fmt: skip
        rows = read_result(results).collections[0].rows
        figures.append([(r.system, r.means["ndcg@10"], r.means["recall@100"]) for r in rows])
    assert figures[0] == figures[1]
    fails(4, "no index 'nobody'", "search", "x", "--pack", small.pack, "--to",
          url.rsplit("/", 1)[0] + "/nobody")  # fmt: skip
    fails(75, "no answer from localhost:1:", "search", "x", "--pack", small.pack, "--to",
          "opensearch://localhost:1/demo")  # fmt: skip
