"""Exports, each loaded in its real consumer and compared with the query encoder."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from typer.testing import CliRunner

from steelyard.cli.export import export
from steelyard.encoders.export import formats, onnx_graph, source
from steelyard.encoders.export.baked_tokenizer import baked_tokenizer
from steelyard.encoders.export.formats import FORMATS, Export, export_pack
from steelyard.encoders.export.onnx_graph import session
from steelyard.encoders.export.opensearch_models import CHUNK_BYTES, MIN_WEIGHT
from steelyard.encoders.pack.convert import convert_pack
from steelyard.encoders.pack.files import read_metadata, write_pack
from steelyard.encoders.pack.query_tokenizer import QueryTokenizer, query_tokenizer
from steelyard.encoders.pack.spaces import vocabulary_hash
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.encoders.query.tables import table_tensors
from steelyard.encoders.query.tokenizer import PackTokenizer
from steelyard.errors import InputError, MissingExtraError, PackError, SteelyardError
from steelyard.types import DenseVectors, l2_normalise
from tests.conftest import (
    DIMS,
    SCIFACT,
    Small,
    dense_arm,
    sparse_arm,
    tiny_metadata,
    tiny_rows,
    tiny_weights,
)

HOSTILE = [
    " ",
    "\t\n  arm\r\n",
    "\u0301heavy e\u0301 é",
    "a\u0000b \ufffd \u200d\u200b",
    "İSTANBUL ﬁne STRASSE ß ς",
    "東京都 ไทย नमस्ते العربية",
    "🚀👩‍👩‍👧‍👦 🇩🇪",
    "query: query: the",
    " q",
    "heavy-arm's !!! ((light))",
    "▁the Ġthe ##s",
    "x" * 300,
    "the heavy arm " * 40,
]
SPELT_OUT = ["[SEP] heavy [UNK] arm [CLS]", "arm<|end|>the<|end|>"]


@pytest.fixture(scope="session")
def bpe_tokenizer() -> QueryTokenizer:
    """A byte-level BPE tokenizer with a special token, trained in memory."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the heavy arm query: the light arm of a balance"] * 5, trainer)
    return query_tokenizer(tokenizer.to_str())


@pytest.fixture(params=["wordpiece", "bpe"])
def tokenizer(request: pytest.FixtureRequest) -> QueryTokenizer:
    name = {"wordpiece": "tiny_tokenizer", "bpe": "bpe_tokenizer"}[request.param]
    made = request.getfixturevalue(name)
    assert isinstance(made, QueryTokenizer)
    return made


def make_pack(path: Path, tokenizer: QueryTokenizer, dtype: str = "float32", **arms: Any) -> Path:
    """A pack of two instructions; ``dense`` and ``sparse`` change its arms."""
    tables = {"default": "", "code": "Find code"}
    dense = dense_arm(tokenizer, dtype=dtype, tables=tables, **arms.get("dense", {}))
    sparse = sparse_arm(tokenizer, **arms.get("sparse", {}))
    rows = tiny_rows(tokenizer.rows)
    write_pack(
        path,
        tiny_metadata(
            tokenizer, vocabulary=vocabulary_hash(tokenizer.text), dense=dense, sparse=sparse
        ),
        tokenizer.text,
        {**table_tensors(rows, dtype, "default"), **table_tensors(-rows[::-1], dtype, "code")},
        arms.get("weights", tiny_weights(tokenizer.rows)),
    )
    return path


def answers(made: Export, texts: Sequence[str]) -> DenseVectors:
    return FORMATS[made.format].encode(Path(made.path), texts)


def cut(vectors: DenseVectors, dims: int) -> DenseVectors:
    return l2_normalise(np.ascontiguousarray(vectors[:, :dims]))


def off(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    assert a.shape == b.shape
    return float(np.abs(a - b).max())


@pytest.fixture(scope="session")
def questions() -> list[str]:
    lines = (SCIFACT / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-6), ("float16", 1e-3), ("int8", 1e-2)]
)
@pytest.mark.parametrize("name", list(FORMATS))
def test_real_queries_get_the_packs_vectors(
    small: Small, questions: list[str], tmp_path: Path, name: str, dtype: str, tolerance: float
) -> None:
    made = export_pack(small.pack, name, tmp_path / "out", dtype=dtype)
    assert made.verified_with
    assert made.verified_with.startswith(FORMATS[name].runtime)
    assert made.max_difference is not None
    assert made.max_difference < tolerance
    vectors = answers(made, questions)
    assert vectors.dtype == np.float32
    against_pack = off(vectors, small.encoder.encode_dense(questions))
    # What the same rounding does inside a pack, so that the format adds nothing of its own.
    convert_pack(small.pack, tmp_path / "converted", dtype)
    rounded = QueryEncoder.load(tmp_path / "converted").encode_dense(questions)
    against_rounded = off(vectors, rounded)
    print(f"{name} {dtype}: {against_pack:.1e} {against_rounded:.1e} {made.max_difference:.1e}")
    assert against_pack < tolerance
    half = name == "model2vec" and dtype == "float16"  # it computes in float16
    assert against_rounded < (1e-3 if half else 1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("name", list(FORMATS))
def test_a_packs_own_dtype_is_kept_and_columns_are_cut(
    tmp_path: Path, tokenizer: QueryTokenizer, name: str, dtype: str
) -> None:
    pack = make_pack(tmp_path / "pack", tokenizer, dtype)
    encoder = QueryEncoder.load(pack)
    texts = ["heavy arms", "the query !", "balance", "the the light", "[SEP] é 東"]
    made = export_pack(pack, name, tmp_path / "out", instruction="code", dims=5)
    assert (made.dtype, made.dims, made.instruction) == (dtype, 5, "code")
    expected = cut(encoder.encode_dense(texts, instruction="code"), 5)
    tolerance = 2e-3 if (name, dtype) == ("model2vec", "float16") else 1e-6
    assert off(answers(made, texts), expected) < tolerance
    metadata = read_metadata(pack)
    assert made.dense_space != metadata.spaces.dense
    whole = export_pack(pack, name, tmp_path / "whole")
    assert whole.dense_space == metadata.spaces.dense
    assert off(answers(whole, texts), encoder.encode_dense(texts)) < tolerance


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("name", list(FORMATS))
def test_ignored_tokens_take_no_part_and_nothing_known_is_zero(
    tmp_path: Path, tiny_tokenizer: QueryTokenizer, name: str, dtype: str
) -> None:
    the = Tokenizer.from_str(tiny_tokenizer.text).token_to_id("the")
    ignored = [*tiny_tokenizer.special_ids, the]
    pack = make_pack(tmp_path / "pack", tiny_tokenizer, dtype, dense={"ignored_ids": ignored})
    made = export_pack(pack, name, tmp_path / "out")
    texts = ["the the", "unknown", "[SEP]", "", "heavy", "the heavy unknown the", "[CLS] heavy"]
    vectors = answers(made, texts)
    assert not np.isnan(vectors).any()
    assert not vectors[:4].any()
    np.testing.assert_allclose(vectors[5:], vectors[[4, 4]], atol=1e-3 if made.notes else 1e-6)
    assert off(vectors, QueryEncoder.load(pack).encode_dense(texts)) < 2e-3
    assert not answers(made, [""]).any()


def test_the_graph_is_what_it_is_said_to_be(tmp_path: Path, tiny_pack: Path) -> None:
    import onnx

    for dtype in ("float32", "float16", "int8"):
        export_pack(tiny_pack, "onnx", tmp_path / dtype, dtype=dtype)
        model = onnx.load(tmp_path / dtype / "dense.onnx")
        onnx.checker.check_model(model, full_check=True)
        assert (model.ir_version, model.opset_import[0].version) == (8, 18)
        assert [value.name for value in model.graph.input] == ["input_ids", "attention_mask"]
        stored: dict[str, Any] = {tensor.name: tensor for tensor in model.graph.initializer}
        kind = onnx.helper.tensor_dtype_to_np_dtype(stored["table"].data_type)
        assert (kind, "scale" in stored) == (np.dtype(dtype), dtype == "int8")
    encode = session(tmp_path / "float32" / "dense.onnx")
    rows = [[4, 5], [], [6], [4, 4, 5, 6, 7]]
    together = encode(rows)  # padded with id 0
    for row, vector in zip(rows, together, strict=True):
        np.testing.assert_allclose(encode([row])[0], vector, atol=1e-6)
    assert not together[1].any()


def test_the_graph_gives_zero_where_a_runtime_says_zero_by_zero_is_nan(
    tmp_path: Path, tiny_pack: Path
) -> None:
    import onnx
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    class LpNormalization(OpRun):
        op_domain = ""

        def _run(self, x: Any, **settings: Any) -> tuple[Any]:
            with np.errstate(invalid="ignore"):
                return (x / np.linalg.norm(x, axis=-1, keepdims=True),)

    export_pack(tiny_pack, "onnx", tmp_path / "out")
    model = onnx.load(tmp_path / "out" / "dense.onnx")
    evaluator: Any = ReferenceEvaluator(model, new_ops=[LpNormalization])
    ids = np.array([[0, 1], [4, 5]])
    vectors = evaluator.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
    assert not vectors[0].any()
    assert np.linalg.norm(vectors[1]) == pytest.approx(1)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_table_over_the_protobuf_limit(tmp_path: Path, tiny_pack: Path, dtype: str) -> None:
    texts = ["heavy arms", ""]
    inside = export_pack(tiny_pack, "onnx", tmp_path / "inside", dtype=dtype)
    beside = export_pack(
        tiny_pack, "onnx", tmp_path / "beside", dtype=dtype, protobuf_limit=65_600
    )
    assert not inside.external_data
    assert not inside.notes
    assert beside.external_data
    assert beside.files["dense.onnx.data"].bytes == 15 * DIMS * (4 if dtype == "float32" else 1)
    assert "dense.onnx.data" in beside.notes[0]
    np.testing.assert_array_equal(answers(inside, texts), answers(beside, texts))
    with pytest.raises(InputError, match=r"protobuf allows 65,600") as caught:
        export_pack(tiny_pack, "opensearch", tmp_path / "no", dtype=dtype, protobuf_limit=65_600)
    assert "--dims" in caught.value.hint
    assert "int8" in caught.value.hint
    assert not (tmp_path / "no").exists()


def test_a_table_is_written_slice_by_slice(
    tmp_path: Path, tiny_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {name: export_pack(tiny_pack, name, tmp_path / name, dtype="int8") for name in FORMATS}
    monkeypatch.setattr(source, "BLOCK_BYTES", 4 * DIMS * 4)
    assert len(list(source.open_source(tiny_pack).blocks())) == 4
    for name, made in whole.items():
        again = export_pack(tiny_pack, name, tmp_path / f"{name} again", dtype="int8")
        assert again.files == made.files


@pytest.mark.parametrize("prefix", ["", " ", "Query: ", "ẞ"])
@pytest.mark.parametrize("limit", [None, 7])
def test_a_baked_tokenizer_gives_the_packs_ids(
    tokenizer: QueryTokenizer, prefix: str, limit: int | None
) -> None:
    pack = PackTokenizer(
        Tokenizer.from_str(tokenizer.text), tokenizer.rows, text_prefix=prefix, max_tokens=limit
    )
    baked = Tokenizer.from_str(
        baked_tokenizer(tokenizer.text, text_prefix=prefix, max_tokens=limit)
    )
    texts = HOSTILE if prefix else ["", *HOSTILE, *SPELT_OUT]
    for text in texts:
        ids, _ = pack.encode_one(text)
        assert baked.encode(text).ids == ids, text
        assert baked.encode(text, add_special_tokens=False).ids == ids, text
    assert [e.ids for e in baked.encode_batch_fast(texts)] == [
        pack.encode_one(t)[0] for t in texts
    ]


def test_where_a_baked_prefix_differs(tiny_tokenizer: QueryTokenizer) -> None:
    pack = PackTokenizer(
        Tokenizer.from_str(tiny_tokenizer.text), tiny_tokenizer.rows, text_prefix="query "
    )
    baked = Tokenizer.from_str(
        baked_tokenizer(tiny_tokenizer.text, text_prefix="query ", max_tokens=None)
    )
    assert pack.tokenizer.encode("query").ids == pack.encode_one("")[0]
    assert baked.encode("").ids == []
    spelt = "heavy [SEP] arm"
    assert baked.encode(spelt).tokens == ["query", "heavy", "[SEP]", "query", "arm"]
    assert len(pack.encode_one(spelt)[0]) == 4


@pytest.mark.parametrize("name", list(FORMATS))
def test_prefix_and_cut(tmp_path: Path, tokenizer: QueryTokenizer, name: str) -> None:
    arm = {"text_prefix": "The ", "query_max_tokens": 40}
    pack = make_pack(tmp_path / "pack", tokenizer, dense=arm)
    made = export_pack(pack, name, tmp_path / "out")
    texts = ["heavy arm", "  heavy", "light balance " * 30, "a", "!"]
    if name == "sentence-transformers":
        texts += ["", *SPELT_OUT]  # a prompt is put before any text
    if name == "model2vec":
        texts[2] = "a!" * 100  # cut by tokens before its own cut by characters
    assert off(answers(made, texts), QueryEncoder.load(pack).encode_dense(texts)) < 1e-6
    written = json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8"))
    assert written["text_prefix"] == "The "
    assert written["query_max_tokens"] == 40


def test_sentence_transformers_refuses_documents_and_prefixes_encode_too(
    tmp_path: Path, tiny_tokenizer: QueryTokenizer
) -> None:
    from sentence_transformers import SentenceTransformer

    pack = make_pack(tmp_path / "pack", tiny_tokenizer, dense={"text_prefix": "the "})
    export_pack(pack, "sentence-transformers", tmp_path / "out")
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    expected = QueryEncoder.load(pack).encode_dense(["heavy"])
    np.testing.assert_allclose(model.encode(["heavy"]), expected, atol=1e-6)
    assert model.get_embedding_dimension() == DIMS
    with pytest.raises(ValueError, match="document"):
        model.encode_document(["a text"])
    model.save(str(tmp_path / "saved"))
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_allclose(again.encode_query(["heavy"]), expected, atol=1e-6)


def test_model2vec_with_gaps_in_the_vocabulary_and_a_meaning_of_unknown(tmp_path: Path) -> None:
    words = {"[UNK]": 0, "heavy": 1, "light": 4, "arm": 6}
    made = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))  # noqa: S106
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    gaps = query_tokenizer(made.to_str())
    assert gaps.rows == 7
    texts = ["heavy arm", "light unknown", ""]
    for dtype in ("float32", "int8"):
        pack = make_pack(tmp_path / dtype, gaps, dtype)
        export = export_pack(pack, "model2vec", tmp_path / f"{dtype}-out")
        assert off(answers(export, texts), QueryEncoder.load(pack).encode_dense(texts)) < 1e-6
    meant = make_pack(tmp_path / "meant", gaps, dense={"ignored_ids": []})
    with pytest.raises(InputError, match="unknown token '\\[UNK\\]', which model2vec drops"):
        export_pack(meant, "model2vec", tmp_path / "no")
    made_onnx = export_pack(meant, "onnx", tmp_path / "yes")
    expected = QueryEncoder.load(meant).encode_dense(texts)
    assert off(answers(made_onnx, texts), expected) < 1e-6


@dataclass(frozen=True)
class Zip:
    tokenizer: Tokenizer
    files: dict[str, bytes]


def unzip(path: Path) -> Zip:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        files = {name: archive.read(name) for name in archive.namelist()}
    return Zip(Tokenizer.from_str(files["tokenizer.json"].decode()), files)


def test_the_cluster_pair(tmp_path: Path, tokenizer: QueryTokenizer) -> None:
    pack = make_pack(
        tmp_path / "pack",
        tokenizer,
        dense={"query_max_tokens": 6},
        sparse={"text_prefix": "a ", "query_max_tokens": 9},
    )
    encoder = QueryEncoder.load(pack)
    made = export_pack(pack, "opensearch", tmp_path / "out")
    dense, sparse = (unzip(tmp_path / "out" / f"{arm}.zip") for arm in ("dense", "sparse"))
    assert list(dense.files) == ["model.onnx", "tokenizer.json"]
    assert list(sparse.files) == ["idf.json", "tokenizer.json"]

    (tmp_path / "model.onnx").write_bytes(dense.files["model.onnx"])
    rows = [encoding.ids for encoding in dense.tokenizer.encode_batch(HOSTILE)]
    vectors = session(tmp_path / "model.onnx")(rows)
    assert off(vectors, encoder.encode_dense(HOSTILE)) < 1e-6

    weights = json.loads(sparse.files["idf.json"])
    for i, text in enumerate(HOSTILE):
        found, _ = encoder.encode_sparse(HOSTILE).row(i)
        terms = {encoder.tokenizer.id_to_token(j): encoder.query_weights[j] for j in found}
        assert cluster_terms(sparse.tokenizer, weights, text) == terms, text
    assert any("sparse.zip" in note and "'a '" in note for note in made.notes)


def cluster_terms(tokenizer: Tokenizer, idf: dict[str, float], text: str) -> dict[str, Any]:
    """As ML Commons does: each id once, named by decoding it alone, special tokens skipped."""
    ids = set(tokenizer.encode(text).ids)
    names = [tokenizer.decode([token], skip_special_tokens=True) for token in ids]
    return {name: np.float32(idf.get(name, 1)) for name in names if name}


@pytest.mark.parametrize("ignored", [True, False])
def test_special_tokens_are_terms_in_the_cluster_where_they_are_in_the_pack(
    tmp_path: Path, tokenizer: QueryTokenizer, ignored: bool
) -> None:
    ids = tokenizer.special_ids if ignored else []
    pack = make_pack(tmp_path / "pack", tokenizer, sparse={"ignored_ids": ids})
    export_pack(pack, "opensearch", tmp_path / "out")
    sparse = unzip(tmp_path / "out" / "sparse.zip")
    encoder = QueryEncoder.load(pack)
    for text in [*SPELT_OUT, *HOSTILE]:
        found, _ = encoder.encode_sparse([text]).row(0)
        cluster = cluster_terms(sparse.tokenizer, json.loads(sparse.files["idf.json"]), text)
        assert set(cluster) == {encoder.tokenizer.id_to_token(i) for i in found}


@pytest.mark.parametrize("ignored", [True, False])
def test_no_text_is_without_tokens_in_the_cluster(
    tmp_path: Path, tokenizer: QueryTokenizer, ignored: bool
) -> None:
    ids = tokenizer.special_ids if ignored else []
    arm = {"ignored_ids": ids, "query_max_tokens": 40}
    pack = make_pack(tmp_path / "pack", tokenizer, dense=arm)
    export_pack(pack, "opensearch", tmp_path / "out")
    baked = unzip(tmp_path / "out" / "dense.zip").tokenizer
    more = [min(ids)] if ignored else []
    for text in ["", "the heavy arm " * 40, *HOSTILE, *SPELT_OUT]:
        plain = Tokenizer.from_str(tokenizer.text).encode(text, add_special_tokens=False).ids
        assert baked.encode(text).ids == plain[:40] + more


def test_the_cluster_pair_registers(tmp_path: Path, tiny_pack: Path) -> None:
    made = export_pack(tiny_pack, "opensearch", tmp_path / "out")
    written = json.loads((tmp_path / "out" / "models.json").read_text(encoding="utf-8"))
    assert written["chunk_bytes"] == CHUNK_BYTES
    for arm, kind, model_format in (
        ("dense", "TEXT_EMBEDDING", "ONNX"),
        ("sparse", "SPARSE_TOKENIZE", "TORCH_SCRIPT"),
    ):
        body = written[arm]["register_meta"]
        data = (tmp_path / "out" / written[arm]["file"]).read_bytes()
        assert (body["function_name"], body["model_format"]) == (kind, model_format)
        assert body["model_content_hash_value"] == hashlib.sha256(data).hexdigest()
        assert body["model_content_size_in_bytes"] == len(data)
        assert body["total_chunks"] == 1
        assert body["name"] == f"tiny {arm} {made.pack_id}"
    config = written["dense"]["register_meta"]["model_config"]
    assert config["embedding_dimension"] == DIMS
    assert config["all_config"] == "{}"
    again = export_pack(tiny_pack, "opensearch", tmp_path / "again")
    assert again.files == made.files
    export_json = (tmp_path / "out" / "export.json").read_bytes()
    assert (tmp_path / "again" / "export.json").read_bytes() == export_json


def test_term_weights_that_the_engine_cannot_take(
    tmp_path: Path, tiny_tokenizer: QueryTokenizer
) -> None:
    weights = tiny_weights(tiny_tokenizer.rows)
    weights[5], weights[6], weights[7] = 0, 0.1, 128
    arms: dict[str, Any] = {"dense": {"query_max_tokens": 600}, "weights": weights}
    pack = make_pack(tmp_path / "pack", tiny_tokenizer, **arms)
    made = export_pack(pack, "opensearch", tmp_path / "out")
    idf = json.loads(unzip(tmp_path / "out" / "sparse.zip").files["idf.json"])
    encoder = QueryEncoder.load(pack)
    assert set(idf) == {encoder.tokenizer.id_to_token(i) for i in range(4, 15)}
    assert idf[encoder.tokenizer.id_to_token(5)] == MIN_WEIGHT
    assert idf[encoder.tokenizer.id_to_token(6)] == pytest.approx(0.05)
    assert idf[encoder.tokenizer.id_to_token(7)] == 64
    assert "multiplied by 0.5" in made.notes[0]
    assert "600 tokens, ML Commons at 511" in made.notes[1]


def test_places(tmp_path: Path, tiny_pack: Path) -> None:
    out = tmp_path / "out"
    export_pack(tiny_pack, "onnx", out)
    with pytest.raises(InputError, match="already holds an export"):
        export_pack(tiny_pack, "model2vec", out)
    export_pack(tiny_pack, "model2vec", out, overwrite=True)
    assert {file.name for file in out.iterdir()} == {
        "config.json", "export.json", "model.safetensors", "tokenizer.json"
    }  # fmt: skip
    holiday = tmp_path / "holiday"
    holiday.mkdir()
    (holiday / "photo.jpg").write_bytes(b"precious")
    for place in (holiday, tiny_pack, holiday / "photo.jpg"):
        with pytest.raises(InputError, match="is not an export"):
            export_pack(tiny_pack, "onnx", place, overwrite=True)
    assert (holiday / "photo.jpg").read_bytes() == b"precious"
    assert {entry.name for entry in tmp_path.iterdir()} == {"tiny", "out", "holiday"}
    written = json.loads((out / "export.json").read_text(encoding="utf-8"))
    for name, file in written["files"].items():
        data = (out / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["bytes"], file["sha256"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dims": 9}, "9 dims of a pack that has 8"),
        ({"dims": 0}, "0 dims"),
        ({"dtype": "bfloat16"}, "unknown table dtype 'bfloat16'"),
        ({"instruction": "none"}, "no instruction 'none'"),
        ({"format_name": "gguf"}, "unknown format 'gguf'"),
    ],
)
def test_settings_that_do_not_fit(
    tmp_path: Path, tiny_pack: Path, settings: dict[str, Any], message: str
) -> None:
    arguments: dict[str, Any] = {"format_name": "onnx", "out": tmp_path / "out", **settings}
    with pytest.raises(InputError, match=message) as caught:
        export_pack(tiny_pack, **arguments)
    assert caught.value.hint
    assert {entry.name for entry in tmp_path.iterdir()} == {"tiny"}


def test_values_too_large_for_float16(tmp_path: Path, tiny_tokenizer: QueryTokenizer) -> None:
    rows = tiny_rows(tiny_tokenizer.rows) * 1e6
    write_pack(
        tmp_path / "pack",
        tiny_metadata(tiny_tokenizer),
        tiny_tokenizer.text,
        table_tensors(rows, "float32", "default"),
        tiny_weights(tiny_tokenizer.rows),
    )
    with pytest.raises(InputError, match="too large for float16"):
        export_pack(tmp_path / "pack", "onnx", tmp_path / "out", dtype="float16")


def test_a_consumer_that_answers_otherwise_stops_the_export(
    tmp_path: Path, tiny_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tilted(folder: Path, texts: Sequence[str]) -> DenseVectors:
        return FORMATS["model2vec"].encode(folder, texts) + np.float32(2e-5)

    wrong = {"onnx": replace(FORMATS["model2vec"], encode=tilted)}
    monkeypatch.setattr(formats, "FORMATS", {**FORMATS, **wrong})
    with pytest.raises(PackError, match="differ from the pack's by 2"):
        export_pack(tiny_pack, "onnx", tmp_path / "out")
    assert {entry.name for entry in tmp_path.iterdir()} == {"tiny"}


@pytest.mark.parametrize("name", list(FORMATS))
def test_without_the_libraries(
    tmp_path: Path, tiny_pack: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    import sys

    for module in ("onnxruntime", "model2vec", "sentence_transformers"):
        monkeypatch.setitem(sys.modules, module, None)
    made = export_pack(tiny_pack, name, tmp_path / "out")
    assert (made.verified_with, made.max_difference) == (None, None)
    assert any("not verified" in note for note in made.notes)
    monkeypatch.setitem(sys.modules, "onnx", None)
    if name in ("onnx", "opensearch"):
        with pytest.raises(MissingExtraError, match=r"steelyard\[onnx\]"):
            export_pack(tiny_pack, name, tmp_path / "other")
    else:
        export_pack(tiny_pack, name, tmp_path / "other")


def test_the_command(tmp_path: Path, tiny_pack: Path) -> None:
    app = typer.Typer()
    app.command()(export)
    report = tmp_path / "report.json"
    arguments = [str(tiny_pack), "--format", "onnx", "--out", str(tmp_path / "out")]
    options = ["--dims", "4", "--dtype", "int8", "--instruction", "default"]
    done = CliRunner().invoke(app, [*arguments, *options, "--json", str(report)])
    assert done.exit_code == 0, done.output
    result = json.loads(report.read_text(encoding="utf-8"))
    assert (result["format"], result["dims"], result["dtype"]) == ("onnx", 4, "int8")
    assert result["files"]["dense.onnx"]["bytes"] > 0
    assert result["pack_id"] in done.output
    again = CliRunner().invoke(app, arguments)
    assert isinstance(again.exception, SteelyardError)
    assert CliRunner().invoke(app, [*arguments, "--overwrite"]).exit_code == 0


def test_the_graphs_own_encoding_of_numbers() -> None:
    assert onnx_graph._varint(0) == b"\x00"
    assert onnx_graph._varint(300) == b"\xac\x02"
    assert onnx_graph._varint(2**31) == b"\x80\x80\x80\x80\x08"
