"""The export ``opensearch`` in a real OpenSearch with ML Commons: both models, and searches."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steelyard.encoders.causal.build import BuildJob, build_pack
from steelyard.encoders.causal.tower import CausalEncoder
from steelyard.encoders.export.formats import export_pack
from steelyard.encoders.export.opensearch_models import MIN_WEIGHT, MODELS
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.indexer.encoding.shards import read_shard
from steelyard.plugin.fusion import Fusion
from steelyard.plugin.quantise import quantise
from steelyard.progress import SilentProgress
from steelyard.types import DenseVectors, Document, SparseVectors
from tests.conftest import SCIFACT, Small, scifact_lines
from tests.servers.opensearch_node import RefusedError, ask

pytest_plugins = ["tests.servers.opensearch"]
pytestmark = [pytest.mark.opensearch]

CAUSAL = Path(__file__).parent / "data" / "lightretriever_qwen2" / "model"
TASK = "Given a web search query, retrieve relevant passages that answer the query"
MODEL_SECONDS = 180.0
ARMS = ("dense", "sparse", "hybrid")

HOSTILE = [
    "\t\n  arm\r\n",
    "\u0301heavy e\u0301 é",
    "a\u0000b \ufffd \u200d\u200b",
    "İSTANBUL ﬁne STRASSE ß ς",
    "東京都 ไทย नमस्ते العربية",
    "🚀👩‍👩‍👧‍👦 🇩🇪",
    'query: "quoted" \\ {"text": [1]}',
    "heavy-arm's !!! ((light)) .",
    "▁the Ġthe ##s",
    "[SEP] heavy [UNK] arm [CLS]",
    "line one <|im_start|> <s> </s> <|endoftext|> end",
    "x" * 300,
    "the heavy arm " * 40,
    "a " * 700,  # cut at 511 tokens there and 512 here: of one token, so that nothing is lost
]
INVISIBLE = ["\u200b", "\u0000\u0001", "\u200d \ufeff"]
"""No token is left of these by BERT's normaliser."""


@dataclass(frozen=True)
class Deployed:
    """A pack's export in the node: both models, and an index of documents of its space."""

    url: str
    encoder: QueryEncoder
    dense_model: str
    sparse_model: str
    index: str
    pipeline: str
    ids: list[str]
    dense: DenseVectors
    impacts: SparseVectors

    def predict(self, model: str, texts: Sequence[str]) -> list[Any]:
        """What a model answers to each text."""
        body: dict[str, Any] = {"text_docs": list(texts)}
        if model == self.dense_model:
            body |= {"return_number": True, "target_response": ["sentence_embedding"]}
        answer = ask(self.url, "POST", f"/_plugins/_ml/models/{model}/_predict", body)
        outputs = [output for r in answer["inference_results"] for output in r["output"]]
        if model == self.dense_model:
            assert {output["name"] for output in outputs} == {"sentence_embedding"}
            return [output["data"] for output in outputs]
        return [row for output in outputs for row in output["dataAsMap"]["response"]]

    def search(self, query: dict[str, Any]) -> dict[str, float]:
        """Scores of all documents found, best first."""
        path = f"/{self.index}/_search"
        if "hybrid" in query:
            path += f"?search_pipeline={self.pipeline}"
        body = {"size": len(self.ids), "_source": False, "query": query}
        hits = ask(self.url, "POST", path, body)["hits"]["hits"]
        return {hit["_id"]: hit["_score"] for hit in hits}

    def terms(self, text: str) -> dict[str, float]:
        """Presence times weight of each token: what SPARSE_TOKENIZE should answer."""
        ids, _ = self.encoder.encode_sparse([text]).row(0)
        weights = self.encoder.query_weights
        return {str(self.encoder.tokenizer.id_to_token(i)): float(weights[i]) for i in ids}

    def dense_scores(self, text: str) -> dict[str, float]:
        """Lucene's score of the inner products: 1 + p, or 1 / (1 - p) below 0."""
        products = (self.dense @ self.encoder.encode_dense([text])[0]).tolist()
        scores = [1 + p if p >= 0 else 1 / (1 - p) for p in products]
        return dict(zip(self.ids, scores, strict=True))

    def sparse_scores(self, text: str) -> dict[str, float]:
        """Inner products with the impacts, of documents that share a token."""
        ids, _ = self.encoder.encode_sparse([text]).row(0)
        query = np.zeros(self.impacts.vocabulary_size)
        query[ids] = self.encoder.query_weights[ids]
        products = np.asarray(self.impacts.to_csr() @ query)
        scores = dict(zip(self.ids, map(float, products), strict=True))
        return {identifier: score for identifier, score in scores.items() if score > 0}


def in_text(made: Deployed, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both arms' queries, encoded in the cluster."""
    dense = {"query_text": text, "model_id": made.dense_model, "k": len(made.ids)}
    sparse = {"query_text": text, "model_id": made.sparse_model}
    return {"neural": {"dense": dense}}, {"neural_sparse": {"sparse": sparse}}


def in_vectors(made: Deployed, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both arms' queries, encoded here."""
    dense = {"vector": made.encoder.encode_dense([text])[0].tolist(), "k": len(made.ids)}
    sparse = {"query_tokens": made.terms(text)}
    return {"knn": {"dense": dense}}, {"neural_sparse": {"sparse": sparse}}


def deploy(url: str, folder: Path, arm: str) -> str:
    """Register, upload and deploy one model of an export, as docs/exports.md says."""
    models = json.loads((folder / MODELS).read_text(encoding="utf-8"))
    body = models[arm]["register_meta"]
    model: str = ask(url, "POST", "/_plugins/_ml/models/_register_meta", body)["model_id"]
    content, size = (folder / models[arm]["file"]).read_bytes(), models["chunk_bytes"]
    for part in range(body["total_chunks"]):
        chunk = content[part * size : (part + 1) * size]
        ask(url, "POST", f"/_plugins/_ml/models/{model}/upload_chunk/{part}", chunk)
    task = ask(url, "POST", f"/_plugins/_ml/models/{model}/_deploy")["task_id"]
    deadline = time.monotonic() + MODEL_SECONDS
    while time.monotonic() < deadline:
        state = ask(url, "GET", f"/_plugins/_ml/tasks/{task}")
        if state["state"] == "COMPLETED":
            return model
        assert state["state"] in ("CREATED", "RUNNING"), state
        time.sleep(0.2)
    raise AssertionError(f"the model is not deployed: {state}")


def load(
    url: str,
    index: str,
    encoder: QueryEncoder,
    ids: list[str],
    dense: DenseVectors,
    impacts: SparseVectors,
) -> None:
    """An index of one shard: the vectors for Lucene, and impacts by the tokens' strings."""
    vector = {
        "type": "knn_vector",
        "dimension": encoder.dims,
        "method": {"name": "hnsw", "engine": "lucene", "space_type": "innerproduct"},
    }
    body = {
        "settings": {"index": {"knn": True, "number_of_shards": 1, "number_of_replicas": 0}},
        "mappings": {"properties": {"dense": vector, "sparse": {"type": "rank_features"}}},
    }
    ask(url, "PUT", f"/{index}", body)
    lines = []
    for identifier, row, (tokens, weights) in zip(ids, dense, impacts.rows(), strict=True):
        names = map(encoder.tokenizer.id_to_token, tokens.tolist())
        features = dict(zip(names, weights.tolist(), strict=True))
        lines.append(json.dumps({"index": {"_id": identifier}}))
        lines.append(json.dumps({"dense": row.tolist(), "sparse": features}))
    done = ask(url, "POST", f"/{index}/_bulk?refresh=true", "\n".join(lines) + "\n")
    assert not done["errors"], str(done)[:2000]


@pytest.fixture(scope="module")
def pipeline(opensearch_url: str) -> str:
    """min-max and the weights of a pack's defaults."""
    processor = {
        "normalization": {"technique": "min_max"},
        "combination": {
            "technique": "arithmetic_mean",
            "parameters": {"weights": list(Fusion().weights)},
        },
    }
    body = {"phase_results_processors": [{"normalization-processor": processor}]}
    ask(opensearch_url, "PUT", "/_search/pipeline/min-max-of-exports", body)
    return "min-max-of-exports"


@pytest.fixture(scope="module", params=["minilm", "lm-head"])
def made(
    request: pytest.FixtureRequest,
    opensearch_url: str,
    pipeline: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployed]:
    """The small real pack, and one of a causal model with a byte-level BPE tokenizer."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "minilm":
        small: Small = request.getfixturevalue("small")
        pack = small.pack
        shards = [read_shard(small.made.shards / s.name) for s in small.made.manifest.shards]
        ids = [document.id for shard in shards for document in shard.documents]
        dense = np.concatenate([shard.dense for shard in shards])
        rows = [row for shard in shards for row in shard.sparse.rows()]
    else:
        pack = folder / "pack"
        job = BuildJob(str(CAUSAL), {"default": TASK}, max_length=48)
        build_pack(job, pack, SilentProgress(), work=folder / "work")
        documents = [Document(d["_id"], d["text"], d["title"]) for d in scifact_lines(60)]
        ids = [document.id for document in documents]
        tower = CausalEncoder(str(CAUSAL), max_length=48)
        vectors = tower.encode_document([document.content for document in documents])
        assert vectors.dense is not None
        assert vectors.sparse is not None
        dense, rows = vectors.dense, list(vectors.sparse.rows())
    encoder = QueryEncoder.load(pack)
    sparse = SparseVectors.from_rows(rows, encoder.vocabulary_size)
    impacts, _ = quantise(sparse, encoder.metadata.sparse.scale)
    export_pack(pack, "opensearch", folder / "export")
    index = f"export-{request.param}"
    load(opensearch_url, index, encoder, ids, dense, impacts)
    models = {arm: deploy(opensearch_url, folder / "export", arm) for arm in ("dense", "sparse")}
    yield Deployed(
        url=opensearch_url,
        encoder=encoder,
        dense_model=models["dense"],
        sparse_model=models["sparse"],
        index=index,
        pipeline=pipeline,
        ids=ids,
        dense=dense,
        impacts=impacts,
    )
    for model in models.values():
        ask(opensearch_url, "POST", f"/_plugins/_ml/models/{model}/_undeploy")
        ask(opensearch_url, "DELETE", f"/_plugins/_ml/models/{model}")
    ask(opensearch_url, "DELETE", f"/{index}")


@pytest.fixture(scope="module")
def questions() -> list[str]:
    """A dozen real queries."""
    lines = (SCIFACT / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines[:1100:95]]


def min_max(scores: dict[str, float]) -> dict[str, float]:
    """As the normalization-processor does: 1 where all are equal, and .001 for the lowest."""
    low, high = min(scores.values(), default=0.0), max(scores.values(), default=0.0)
    if low == high:
        return dict.fromkeys(scores, 1.0)
    return {i: (s - low) / (high - low) if s > low else 0.001 for i, s in scores.items()}


def agree(found: dict[str, float], expected: dict[str, float], tolerance: float) -> float:
    """Same documents and scores, and so the same ranking; returns the largest difference."""
    assert found.keys() == expected.keys()
    difference = max((abs(score - expected[i]) for i, score in found.items()), default=0.0)
    assert difference <= tolerance
    ranked = np.array([expected[identifier] for identifier in found])
    assert (np.diff(ranked) <= 2 * tolerance).all()
    return difference


def test_dense_model(made: Deployed, questions: list[str]) -> None:
    texts = [*questions, *HOSTILE, *INVISIBLE]
    found = np.array(made.predict(made.dense_model, texts), np.float32)
    difference = float(np.abs(found - made.encoder.encode_dense(texts)).max())
    print(f"{made.index}: dense vectors differ by {difference:.1e}")
    assert difference <= 1e-5


def test_sparse_model(made: Deployed, questions: list[str]) -> None:
    texts = [*questions, *HOSTILE, *INVISIBLE]
    rows = made.predict(made.sparse_model, texts)
    assert len(rows) == len(texts)
    differences = [0.0]
    for text, row in zip(texts, rows, strict=True):
        found = {token: weight for token, weight in row.items() if weight > MIN_WEIGHT}
        expected = made.terms(text)
        assert found.keys() == expected.keys(), text
        differences += [abs(found[token] - expected[token]) for token in found]
    print(f"{made.index}: sparse weights differ by {max(differences):.1e}")
    assert max(differences) <= 1e-6


def test_a_repeated_word_counts_once_in_the_cluster(made: Deployed) -> None:
    once, twice = made.predict(made.sparse_model, ["the arm", "the arm the arm"])
    assert once.keys() == twice.keys()
    here = made.encoder.encode_sparse(["the arm", "the arm the arm"]).to_csr().sum(axis=1)
    assert here[1, 0] > sum(twice.values())


def test_searches_by_text_rank_as_by_vectors_and_by_inner_products(
    made: Deployed, questions: list[str]
) -> None:
    text_off, product_off = dict.fromkeys(ARMS, 0.0), dict.fromkeys(ARMS, 0.0)
    for text in [*questions, *HOSTILE, *INVISIBLE]:
        by_text, by_vectors = in_text(made, text), in_vectors(made, text)
        expected = [made.dense_scores(text), made.sparse_scores(text)]
        expected.append(dict.fromkeys(made.ids, 0.0))
        for weight, scores in zip(Fusion().weights, expected[:2], strict=True):
            for identifier, score in min_max(scores).items():
                expected[2][identifier] += weight * score
        for arm, scores, query, client in zip(
            ARMS,
            expected,
            (*by_text, {"hybrid": {"queries": list(by_text)}}),
            (*by_vectors, {"hybrid": {"queries": list(by_vectors)}}),
            strict=True,
        ):
            found = made.search(query)
            tolerance = 1e-6 * max([1.0, *scores.values()])
            text_off[arm] = max(text_off[arm], agree(found, made.search(client), tolerance))
            product_off[arm] = max(product_off[arm], agree(found, scores, tolerance))
    print(f"{made.index}: text and vectors {text_off}, text and products {product_off}")


@pytest.mark.parametrize("text", ["", " ", "\t\n"])
def test_blank_queries_are_refused_by_the_engine(made: Deployed, text: str) -> None:
    dense, sparse = in_text(made, text)
    for query in (dense, sparse, {"hybrid": {"queries": [dense, sparse]}}):
        with pytest.raises(RefusedError) as caught:
            made.search(query)
        assert caught.value.status == 400


def test_longer_queries_than_the_dense_model_reads(made: Deployed) -> None:
    """Its last token is an ignored one, so that 511 of ML Commons' 512 are the query's."""
    limit = 511 if made.encoder.metadata.dense.ignored_ids else 512
    text = "heavy light arm " * 300
    full = made.encoder.tokenizer.encode(made.encoder.metadata.dense.text_prefix + text)
    ids = np.array(full.ids[:limit])
    keep = ~np.isin(ids, made.encoder.metadata.dense.ignored_ids)
    (table,) = made.encoder.tables.values()
    total = np.asarray(table.rows, np.float64)[ids[keep]].sum(axis=0)
    (found,) = made.predict(made.dense_model, [text])
    np.testing.assert_allclose(found, total / np.linalg.norm(total), atol=1e-5)
    assert np.abs(np.array(found) - made.encoder.encode_dense([text])[0]).max() < 1e-2
