"""Numbers made by LightRetriever's own code on a small random model, reproduced.

tests/data/lightretriever_qwen2 holds the model and what the official code gave for it in float32.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from steelyard.encoders.causal.build import BuildJob, build_pack
from steelyard.encoders.causal.table import TableRows
from steelyard.encoders.causal.tower import CausalEncoder
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.plugin.quantise import quantise
from steelyard.progress import SilentProgress
from tests.conftest import write_jsonl
from tests.test_cli import fails, ok

REFERENCE = Path(__file__).parent / "data" / "lightretriever_qwen2"
TASK = "Given a web search query, retrieve relevant passages that answer the query"


def _json(name: str) -> Any:
    return json.loads((REFERENCE / name).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Reference:
    tokens: dict[str, Any]
    sparse: dict[str, Any]
    vectors: dict[str, NDArray[np.float32]]
    tower: CausalEncoder
    queries: QueryEncoder

    @property
    def table_columns(self) -> int:
        return int(self.tokens["len_tokenizer"])


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("parity")
    tokens = _json("tokens.json")
    model = str(REFERENCE / "model")
    job = BuildJob(model, {"default": TASK}, max_length=48, max_terms=None, all_rows=True)
    assert job.prompts["default"] == tokens["prompt"]
    build_pack(job, folder / "pack", SilentProgress(), work=folder / "work")
    assert list((folder / "work").iterdir()) == []
    tower = CausalEncoder(model, max_length=48, max_terms=None, query_prompt=tokens["prompt"])
    return Reference(
        tokens=tokens,
        sparse=_json("sparse.json"),
        vectors=dict(np.load(REFERENCE / "vectors.npz")),
        tower=tower,
        queries=QueryEncoder.load(folder / "pack"),
    )


def _close(found: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def test_special_tokens_are_chosen_and_made_as_officially(reference: Reference) -> None:
    special, tokens = reference.tokens["special"], reference.tower.tokens
    assert (tokens.bos, tokens.eos, tokens.pad) == tuple(
        special[n][1] for n in ("bos", "eos", "pad")
    )
    assert tokens.made == ("<|bos|>",)
    assert tokens.rows == reference.table_columns


def test_document_token_ids(reference: Reference) -> None:
    texts = reference.tokens["document_texts_joined"]
    assert reference.tower.tokens.ids(texts, 48) == reference.tokens["document_ids"]


def test_prompt_and_full_query_token_ids(reference: Reference) -> None:
    tokens, expected = reference.tower.tokens, reference.tokens
    assert tokens.prompt_ids(expected["prompt"])[1:] == expected["prompt_ids"]
    joint = tokens.ids(expected["queries"], 512, expected["prompt"])
    assert joint == expected["query_ids_symmetric"]


@pytest.mark.parametrize("limit", [None, 16])
def test_query_token_ids(reference: Reference, limit: int | None) -> None:
    encoder, expected = reference.queries, reference.tokens
    suffix = "" if limit is None else f"_maxlen{limit}"
    for arm, tokens in (("dense", encoder.dense_tokens), ("sparse", encoder.sparse_tokens)):
        prefixed = [tokens.text_prefix + text for text in expected["queries"]]
        found = [
            e.ids[:limit]
            for e in encoder.tokenizer.encode_batch(prefixed, add_special_tokens=False)
        ]
        assert found == expected[f"query_ids_{arm}{suffix}"]


def test_documents(reference: Reference) -> None:
    found = reference.tower.encode_document(reference.tokens["document_texts_joined"])
    assert found.dense is not None
    assert found.sparse is not None
    _close(found.dense, reference.vectors["document_dense"], 1e-5)
    expected = reference.vectors["document_sparse"][:, : reference.table_columns]
    weights = found.sparse.to_csr().toarray()
    np.testing.assert_array_equal(weights > 0, expected > 0)
    _close(weights, expected, 1e-4)


def test_impacts(reference: Reference) -> None:
    """floor(100 w), but for weights that a change in the fifth decimal would move."""
    found = reference.tower.encode_document(reference.tokens["document_texts_joined"]).sparse
    assert found is not None
    impacts, clipped = quantise(found, 100.0)
    assert clipped == 0
    rows = zip(
        impacts.rows(),
        reference.sparse["document_impact_x100"],
        reference.sparse["document_impact_sensitive_ids"],
        strict=True,
    )
    for (ids, values), expected, sensitive in rows:
        kept = {int(k): v for k, v in expected.items() if 0 <= int(k) < reference.table_columns}
        ours = dict(zip(ids.tolist(), values.tolist(), strict=True))
        for term in kept.keys() | ours.keys():
            allowed = 1 if term in {int(s) for s in sensitive} else 0
            assert abs(ours.get(term, 0) - kept.get(term, 0)) <= allowed


def test_the_heaviest_terms_are_kept(reference: Reference) -> None:
    texts = reference.tokens["document_texts_joined"]
    everything = reference.tower.encode_document(texts).sparse
    assert everything is not None
    tower = CausalEncoder(str(REFERENCE / "model"), max_length=48, max_terms=20)
    found = tower.encode_document(texts).sparse
    assert found is not None
    expected = everything.heaviest(20)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.weights, expected.weights)


def test_table(reference: Reference) -> None:
    rows = reference.queries.tables["default"].rows
    _close(np.asarray(rows), reference.vectors["table"], 1e-5)


def test_queries(reference: Reference) -> None:
    found = reference.queries.encode_query(reference.tokens["queries"])
    _close(found.dense, reference.vectors["query_dense"], 1e-5)
    for row, expected in zip(found.sparse.rows(), reference.sparse["query_sparse"], strict=True):
        assert dict(zip(map(str, row[0].tolist()), row[1].tolist(), strict=True)) == expected
    for text, vector in zip(
        reference.tokens["queries"], reference.vectors["query_dense"], strict=True
    ):
        _close(reference.queries.encode_query(text).dense[0], vector, 1e-5)


def test_edge_queries(reference: Reference) -> None:
    """Empty, blank, a literal padding token, a string that is special elsewhere."""
    edge = _json("edge_queries.json")
    found = reference.queries.encode_query(edge["queries"])
    _close(found.dense, np.array(edge["query_dense"], np.float32), 1e-5)
    for row, expected in zip(found.sparse.rows(), edge["query_sparse"], strict=True):
        assert dict(zip(map(str, row[0].tolist()), row[1].tolist(), strict=True)) == expected


def test_the_table_is_what_training_sees(reference: Reference) -> None:
    """The paper's claim: the block-masked training forward gives the look-up's vectors.

    Query 11 spells a special token, which training counts twice.
    """
    found = reference.queries.encode_dense(reference.tokens["queries"][:11])
    _close(found, reference.vectors["query_dense_train_single"][:11], 1e-5)
    _close(found, reference.vectors["query_dense_train_batch"][:11], 1e-5)


def test_full_encoder_on_queries(reference: Reference) -> None:
    found = reference.tower.encode_query(reference.tokens["queries"])
    _close(found, reference.vectors["query_dense_symmetric"], 1e-5)


def test_scores_of_both_arms(reference: Reference) -> None:
    documents = reference.tower.encode_document(reference.tokens["document_texts_joined"])
    queries = reference.queries.encode_query(reference.tokens["queries"])
    assert documents.dense is not None
    assert documents.sparse is not None
    _close(queries.dense @ documents.dense.T, reference.vectors["dense_scores"], 2e-5)
    # The official sum runs over columns that no query of ours can have, too: none has any.
    scores = (queries.sparse.to_csr() @ documents.sparse.to_csr().T).toarray()
    np.testing.assert_allclose(scores, reference.sparse["dot_products"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("block", [1, 7, 300])
def test_rows_do_not_depend_on_how_many_share_a_sequence(reference: Reference, block: int) -> None:
    tower, ids = reference.tower, np.arange(0, reference.table_columns, 37)
    maker = TableRows(tower.model, tower.tokens, reference.tokens["prompt"], block_tokens=block)
    _close(maker.rows(ids), reference.vectors["table"][ids], 1e-5)


def test_shorter_vectors_are_the_first_components(reference: Reference, tmp_path: Path) -> None:
    model = str(REFERENCE / "model")
    job = BuildJob(model, {"default": TASK}, max_length=48, dims=16)
    build_pack(job, tmp_path / "pack", SilentProgress(), work=tmp_path / "work")
    short = QueryEncoder.load(tmp_path / "pack")
    cut = reference.vectors["query_dense"][:, :16]
    expected = cut / np.linalg.norm(cut, axis=1, keepdims=True)
    _close(short.encode_dense(reference.tokens["queries"]), expected, 2e-5)
    tower = CausalEncoder(model, max_length=48, dims=16)
    dense = tower.encode_document(reference.tokens["document_texts_joined"]).dense
    cut = reference.vectors["document_dense"][:, :16]
    assert dense is not None
    _close(dense, cut / np.linalg.norm(cut, axis=1, keepdims=True), 2e-5)


def test_the_command_line(reference: Reference, tmp_path: Path) -> None:
    """Build, encode documents, encode queries: the same numbers in Parquet."""
    model, pack = REFERENCE / "model", tmp_path / "pack"
    titled = [
        {"_id": str(i), "title": d["title"], "text": d["text"]}
        for i, d in enumerate(reference.tokens["documents"])
    ]
    documents = write_jsonl(tmp_path / "documents.jsonl", titled)
    queries = write_jsonl(
        tmp_path / "queries.jsonl",
        [{"_id": str(i), "text": text} for i, text in enumerate(reference.tokens["queries"])],
    )
    ok("pack", "build", "--model", model, "--task", TASK, "--sparse", "lm-head",
       "--max-length", 48, "--instruction", "other=Find a licence", "--out", pack)  # fmt: skip
    ok("encode-documents", documents, "--pack", pack, "--shards", tmp_path / "shards")
    ok("encode", queries, "--pack", pack, "--out", tmp_path / "queries.parquet")
    table = pq.read_table(next((tmp_path / "shards").glob("*.parquet")))
    rows = [int(i) for i in table.column("id").to_pylist()]
    assert len(rows) == 7  # the empty document is rejected
    dense = np.array(table.column("dense").to_pylist(), np.float32)
    _close(dense, reference.vectors["document_dense"][rows], 1e-5)
    for row, ids, weights in zip(
        rows,
        table.column("sparse_ids").to_pylist(),
        table.column("sparse_weights").to_pylist(),
        strict=True,
    ):
        expected = reference.vectors["document_sparse"][row, : reference.table_columns]
        heaviest = np.sort(np.lexsort((np.arange(len(expected)), -expected))[:256])
        assert ids == [i for i in heaviest.tolist() if expected[i] > 0]
        _close(np.array(weights, np.float32), expected[ids], 1e-4)
    encoded = pq.read_table(tmp_path / "queries.parquet")
    assert encoded.column_names == ["id", "dense", "sparse_ids", "sparse_weights"]
    found = np.array(encoded.column("dense").to_pylist(), np.float32)
    _close(found, reference.vectors["query_dense"], 1e-5)
    assert "default, other" in ok("pack", "inspect", pack)
    other = tmp_path / "other.parquet"
    ok("encode", queries, "--pack", pack, "--instruction", "other", "--out", other)
    fails(2, "no instruction 'web'", "encode", queries, "--pack", pack, "--instruction", "web",
          "--out", other)  # fmt: skip


def test_bad_input_on_the_command_line(tmp_path: Path) -> None:
    build = ("pack", "build", "--out", tmp_path / "pack", "--model")
    fails(2, "no model folder at", *build, tmp_path / "nowhere")
    fails(2, "unknown sparse kind 'splade'", *build, REFERENCE / "model", "--sparse", "splade")
    fails(2, "write a new NAME=TASK", *build, REFERENCE / "model", "--instruction", "no task")
    fails(2, "dims 65, the model has 64", *build, REFERENCE / "model", "--dims", 65)
    fails(2, "unknown precision 'int4'", *build, REFERENCE / "model", "--precision", "int4")
    fails(2, "unknown device 'abacus'", *build, REFERENCE / "model", "--device", "abacus")
    assert not (tmp_path / "pack").exists()
