"""The same rankings in every topology: SciFact in real engines, against exact search in memory.

A: dense in Milvus, sparse in OpenSearch. B: both in OpenSearch. C: both in Milvus Lite. D: Lucene
and flat vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
import pytest

from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.eval.collection import JudgedQueries, read_judged
from steelyard.eval.measures import measure
from steelyard.eval.runs import make_run
from steelyard.indexer.build import encode_documents
from steelyard.indexer.loading.load import exact_index, load_shards
from steelyard.indexer.reading.readers import open_corpus
from steelyard.plugin.engine import Candidates, SearchIndex
from steelyard.plugin.exact import ExactIndex
from steelyard.plugin.fusion import Fusion
from steelyard.plugin.ranking import rank
from steelyard.plugin.searcher import Searcher
from steelyard.plugin.urls import open_engine
from steelyard.progress import SilentProgress
from tests.conftest import SCIFACT, Demo
from tests.test_cli import ok

pytest_plugins = ["tests.servers.opensearch", "tests.servers.milvus"]
pytestmark = [
    pytest.mark.model,
    pytest.mark.opensearch,
    pytest.mark.milvus,
    pytest.mark.lucene,
]

TOPOLOGIES = ("A", "B", "C", "D")
CANDIDATES = 1000
FEEDBACK = 3
SLOW = {"C": 3}
"""Milvus Lite takes .6 s a query of 1,000 candidates: every third is asked there."""


@dataclass(frozen=True)
class SciFact:
    """The collection, encoded; exact search over it; and each topology's index."""

    encoder: QueryEncoder
    judged: JudgedQueries
    exact: ExactIndex
    urls: dict[str, str]
    indexes: dict[str, SearchIndex]

    def rankings(self, index: SearchIndex, feedback: int, every: int = 1) -> list[Candidates]:
        """Of every so manieth query."""
        texts = [query.text for query in self.judged.queries[::every]]
        queries = self.encoder.encode_query(texts)
        with ThreadPoolExecutor(2) as threads:
            found = rank(index, queries, Fusion(), CANDIDATES, threads, feedback=feedback)
        return [ranking.fused for ranking in found]

    def ndcg(self, rankings: Sequence[Candidates], every: int = 1) -> float:
        queries = self.judged.queries[::every]
        run = make_run("run", queries, rankings)
        ids = [query.id for query in queries]
        return measure(run, self.judged.qrels, ids).means["ndcg@10"]


@pytest.fixture(scope="module")
def scifact(
    demo: Demo,
    opensearch_url: str,
    milvus_address: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[SciFact]:
    folder, node = tmp_path_factory.mktemp("topologies"), urlsplit(opensearch_url).netloc
    urls = {
        "A": f"dense=milvus://{milvus_address}/topology_a,sparse=opensearch://{node}/topology_a",
        "B": f"opensearch://{node}/topology_b",
        "C": f"milvus-lite://{folder / 'c.db'}?name=topology_c",
        "D": f"lucene://{folder / 'd'}?name=topology_d",
    }
    encoder = QueryEncoder.load(demo.pack)
    shards, manifest = encode_documents(open_corpus(SCIFACT), encoder, SilentProgress())
    engines, indexes = [], {}
    for topology, url in urls.items():
        engine = open_engine(url, vocabulary=encoder.tokenizer)
        engines.append(engine)
        report = load_shards(manifest, shards, encoder.metadata, engine, SilentProgress())
        assert report.documents == 5183
        found = engine.resolve()
        assert found is not None
        indexes[topology] = engine.open(found)
    exact = exact_index(manifest, shards, encoder.metadata)
    yield SciFact(encoder, read_judged(SCIFACT), exact, urls, indexes)
    for engine in engines:
        engine.close()


@pytest.fixture(scope="module", params=[0, FEEDBACK])
def expected(request: pytest.FixtureRequest, scifact: SciFact) -> tuple[int, list[Candidates]]:
    feedback: int = request.param
    return feedback, scifact.rankings(scifact.exact, feedback)


def overlap(ours: Sequence[Candidates], theirs: Sequence[Candidates]) -> float:
    """Mean share of the first ten that both have."""
    shares = [
        len(set(a.ids[:10]) & set(b.ids[:10])) / max(1, len(b.ids[:10]))
        for a, b in zip(ours, theirs, strict=True)
    ]
    return float(np.mean(shares))


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_topology_ranks_as_exact_search_does(
    scifact: SciFact, expected: tuple[int, list[Candidates]], topology: str
) -> None:
    feedback, exact = expected
    every = SLOW.get(topology, 1)
    exact = exact[::every]
    found = scifact.rankings(scifact.indexes[topology], feedback, every)
    share = overlap(found, exact)
    ndcg, wanted = scifact.ndcg(found, every), scifact.ndcg(exact, every)
    same = sum(a.ids[:10] == b.ids[:10] for a, b in zip(found, exact, strict=True))
    print(
        f"topology {topology}, feedback {feedback}: nDCG@10 {ndcg:.4f} (exact {wanted:.4f}), "
        f"overlap@10 {share:.4f}, the same ten in the same order for {same} of {len(exact)}"
    )
    assert abs(ndcg - wanted) <= 0.002
    assert share >= 0.95


@pytest.mark.parametrize("method", ["min-max", "rrf"])
def test_fused_in_the_cluster(demo: Demo, scifact: SciFact, method: str) -> None:
    """B's own pipeline against our fusion of the same arms."""
    texts = [query.text for query in scifact.judged.queries]
    rankings = []
    for by_engine in (False, True):
        with Searcher.open(
            demo.pack,
            scifact.urls["B"],
            fusion=method,
            fused_by_engine=by_engine,
        ) as searcher:
            hits = [searcher.search(text, 100, documents=False).hits for text in texts]
        rankings.append(
            [Candidates([h.id for h in hit], np.array([h.score for h in hit])) for hit in hits]
        )
    ours, theirs = rankings
    share = overlap(theirs, ours)
    figures = [scifact.ndcg(found) for found in rankings]
    print(
        f"{method}: nDCG@10 {figures[0]:.4f} by us, {figures[1]:.4f} in the cluster, "
        f"overlap@10 {share:.4f}"
    )
    assert abs(figures[0] - figures[1]) <= 0.005
    assert share >= 0.95


def test_from_the_command_line(demo: Demo, scifact: SciFact) -> None:
    """One query, in every topology: the same titles."""
    query = scifact.judged.queries[0].text
    outputs = {
        name: ok("search", query, "--pack", demo.pack, "--to", url, "--k", 5).splitlines()[::2]
        for name, url in scifact.urls.items()
        if name in ("A", "B")
    }
    assert outputs["A"] == outputs["B"]
    assert len(outputs["A"]) == 5
