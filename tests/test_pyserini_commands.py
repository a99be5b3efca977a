"""A Pyserini user's run: the README's commands as they stand, and Pyserini's own searchers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from steelyard.encoders.pack.metadata import FusionDefaults
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.eval.collection import JudgedQueries, Query, read_judged
from steelyard.eval.measures import measure
from steelyard.eval.pyserini.environment import prepare_pyserini
from steelyard.eval.pyserini.export import PyseriniExport, export_pyserini
from steelyard.eval.pyserini.query_encoders import DenseQueryEncoder, ImpactQueryEncoder
from steelyard.eval.pyserini.source import Source, open_source
from steelyard.eval.runs import make_run
from steelyard.indexer.loading.load import exact_index
from steelyard.local_servers.java import find_java
from steelyard.plugin.engine import VECTOR_ARMS, Candidates
from steelyard.plugin.exact import ExactIndex
from steelyard.plugin.fusion import Fusion, fuse
from steelyard.progress import SilentProgress
from steelyard.types import Document, EncodedDocuments, SparseVectors
from tests.conftest import Small
from tests.lucene_documents import documents, fill, generation, open_folder

pytestmark = [pytest.mark.lucene]
faiss = pytest.importorskip("faiss")
pytest.importorskip("pandas")

EMPTY = 2
SCALE = 1_000_000
"""Of Pyserini's scores: 100 of the documents, 10,000 of the queries."""


@dataclass(frozen=True)
class Reproduced:
    """The export, what the commands of its README said and wrote, and our own rankings."""

    folder: Path
    made: PyseriniExport
    output: str
    judged: JudgedQueries
    encoder: QueryEncoder
    ours: Mapping[str, Sequence[Candidates]]

    def run(self, arm: str) -> dict[str, list[tuple[str, float]]]:
        found: dict[str, list[tuple[str, float]]] = {q.id: [] for q in self.judged.queries}
        for line in (self.folder / "runs" / f"{arm}.trec").read_text("utf-8").splitlines():
            query, _, document, _, score, _ = line.split()
            found[query].append((document, float(score)))
        return found


def content(small: Small) -> EncodedDocuments:
    """The small collection as impacts, with documents that have no term."""
    stored = small_index(small).export()
    more = [Document(f"empty{i}", "🙂") for i in range(EMPTY)]
    none = (np.zeros(0, np.int32), np.zeros(0, np.float32))
    rows = [*stored.sparse.rows(), *[none] * EMPTY]
    return EncodedDocuments(
        [*stored.documents, *more],
        np.vstack([stored.dense, stored.dense[:EMPTY] * np.float32(-1)]),
        SparseVectors.from_rows(rows, stored.sparse.vocabulary_size),
    )


def some_queries(small: Small) -> JudgedQueries:
    """Real ones, one whose id looks like a number, and one that no token is known of."""
    real = read_judged(small.corpus)
    first = real.queries[0]
    queries = [*real.queries, Query("007", f"{first.text} 🙂"), Query("none", "🙂")]
    # Of documents tied for "none", trec_eval takes this one last.
    last = min(document.id for document in content(small).documents)
    qrels = {**real.qrels, "007": real.qrels[first.id], "none": {last: 1}}
    return JudgedQueries("small/test", queries, {q.id: qrels[q.id] for q in queries})


@pytest.fixture(scope="module")
def reproduced(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Reproduced:
    folder = tmp_path_factory.mktemp("pyserini") / "export"
    judged, encoder, stored = some_queries(small), small.encoder, content(small)
    source = Source("small", encoder.dims, VECTOR_ARMS, iter([stored]))
    made = export_pyserini(source, encoder, folder, SilentProgress(), judged=judged)
    page = (folder / "README.md").read_text(encoding="utf-8")
    script = "\n".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL))
    home = find_java("Pyserini", as_nobody=False).resolve().parents[1]
    kept = {k: v for k, v in os.environ.items() if k not in ("OPENAI_API_KEY", "PYTHONPATH")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**kept, "JAVA_HOME": str(home), "PATH": path},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    queries = encoder.encode_query([query.text for query in judged.queries])
    index = ExactIndex(small_index(small).generation, stored)
    dense = index.dense.search(queries.dense, 1000)
    sparse = index.sparse.search(queries.sparse, 1000)
    hybrid = [fuse(both, Fusion()) for both in zip(dense, sparse, strict=True)]
    ours = {"dense": dense, "sparse": sparse, "hybrid": hybrid}
    return Reproduced(folder, made, done.stdout + done.stderr, judged, encoder, ours)


def small_index(small: Small) -> ExactIndex:
    return exact_index(small.made.manifest, small.made.shards, small.made.metadata)


def test_counts_are_reconciled(reproduced: Reproduced) -> None:
    made = reproduced.made
    assert (made.documents, made.empty, made.lucene_documents) == (122, EMPTY, 120)
    assert re.search(r"indexed:\s+120\b", reproduced.output)
    assert re.search(rf"empty:\s+{EMPTY}\b", reproduced.output)
    assert faiss.read_index(str(reproduced.folder / "faiss" / "index")).ntotal == 122


@pytest.mark.parametrize("arm", ["dense", "sparse"])
def test_scores_and_rankings_are_ours(reproduced: Reproduced, arm: str) -> None:
    queries = reproduced.encoder.encode_query([q.text for q in reproduced.judged.queries]).sparse
    run, scale = reproduced.run(arm), 1 if arm == "dense" else SCALE
    assert len(run) > 20
    for row, (query, ours) in enumerate(
        zip(reproduced.judged.queries, reproduced.ours[arm], strict=True)
    ):
        theirs = {document: score / scale for document, score in run[query.id]}
        if query.id == "none" and arm == "dense":
            assert set(theirs.values()) == {0.0}  # Pyserini's searcher always finds something
            continue
        # A weight is off by half of 1/10,000 at most, and an impact is 5.12 at most.
        terms = len(queries.row(row)[0])
        limit = 1e-5 if arm == "dense" else terms * 5.12 * 0.5e-4 + 1e-5
        assert set(theirs) == set(ours.ids), query.id
        expected = dict(zip(ours.ids, ours.scores.tolist(), strict=True))
        for document, score in theirs.items():
            assert abs(score - expected[document]) <= limit, (query.id, document)
        in_their_order = [expected[document] for document, _ in run[query.id]]
        assert (np.diff(in_their_order) <= 2 * limit).all(), query.id


def test_measures_are_ours(reproduced: Reproduced) -> None:
    judged, ids = reproduced.judged, [q.id for q in reproduced.judged.queries]
    told = re.findall(r"^(ndcg_cut_10|recall_100)\s+all\s+([\d.]+)", reproduced.output, re.M)
    assert len(told) == 6
    for number, arm in enumerate(("dense", "hybrid", "sparse")):  # as the shell sorts them
        ours = measure(make_run(arm, judged.queries, reproduced.ours[arm]), judged.qrels, ids)
        found = {name: float(value) for name, value in told[2 * number : 2 * number + 2]}
        assert ours.means["ndcg@10"] > 0.5
        assert abs(found["ndcg_cut_10"] - ours.means["ndcg@10"]) <= 1e-3
        assert abs(found["recall_100"] - ours.means["recall@100"]) <= 1e-3


def test_encoders_in_pyserinis_own_searchers(reproduced: Reproduced) -> None:
    prepare_pyserini()
    from pyserini.search.faiss import FaissSearcher
    from pyserini.search.hybrid import HybridSearcher
    from pyserini.search.lucene import LuceneImpactSearcher

    sparse = LuceneImpactSearcher(
        str(reproduced.folder / "lucene"), ImpactQueryEncoder(reproduced.encoder), min_idf=-1
    )
    dense = FaissSearcher(str(reproduced.folder / "faiss"), DenseQueryEncoder(reproduced.encoder))
    hybrid = HybridSearcher(dense, sparse)
    assert (sparse.num_docs, dense.num_docs) == (120, 122)
    weights = FusionDefaults()
    for searcher, arm in ((sparse, "sparse"), (dense, "dense")):
        run = reproduced.run(arm)
        for query in reproduced.judged.queries[:5]:
            hits = searcher.search(query.text, 1000)
            assert [hit.docid for hit in hits] == [document for document, _ in run[query.id]]
            np.testing.assert_allclose(
                [hit.score for hit in hits], [score for _, score in run[query.id]], atol=2e-6
            )
    for query, ours in zip(reproduced.judged.queries[:5], reproduced.ours["hybrid"], strict=False):
        hits = hybrid.search(
            query.text, 1000, 10,
            alpha=weights.sparse_weight / weights.dense_weight, normalization=True,
        )  # fmt: skip
        expected = dict(zip(ours.ids, ours.scores.tolist(), strict=True))
        in_their_order = [expected[hit.docid] for hit in hits]
        np.testing.assert_allclose(in_their_order, ours.scores[:10], atol=1e-3)
    assert list(sparse.search("🙂", 10)) == []


def test_an_engine_is_a_source(tiny_encoder: QueryEncoder, tmp_path: Path) -> None:
    spaces = tiny_encoder.metadata.spaces
    made = replace(generation(), dense_space=spaces.dense, sparse_space=spaces.sparse)
    engine = open_folder(tmp_path / "engine")
    fill(engine, made=made)
    engine.close()
    url = f"lucene://{tmp_path / 'engine'}?name=demo"
    with open_source(url, tiny_encoder) as source:
        found = export_pyserini(source, tiny_encoder, tmp_path / "x", SilentProgress())
    impacts = documents(40).sparse
    assert found.source == made.name
    assert (found.documents, found.empty, found.lucene_documents) == (40, 10, 30)
    lines = (tmp_path / "x/collection/documents-00000.jsonl").read_text("utf-8").splitlines()
    for row, line in enumerate(lines):
        ids, weights = impacts.row(row)
        whole = np.clip(np.floor(weights * np.float32(100)), 0, 512).astype(int).tolist()
        expected = {str(i): w for i, w in zip(ids.tolist(), whole, strict=True) if w}
        assert json.loads(line)["vector"] == expected
