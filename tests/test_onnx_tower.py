"""The ONNX tower: real encoders from Maven, an exported one, graphs made in memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from typer.testing import CliRunner

from steelyard.cli import tower as command
from steelyard.config import cache_dir
from steelyard.encoders.distillation.settings import DistillationSettings
from steelyard.encoders.documents.from_pack import document_precision, open_document_encoder
from steelyard.encoders.documents.model_source import locate_model
from steelyard.encoders.documents.onnx import export, optimum_method
from steelyard.encoders.documents.onnx.encoder import OnnxEncoder
from steelyard.encoders.documents.onnx.export import ExportJob, export_tower
from steelyard.encoders.documents.onnx.folder import is_tower
from steelyard.encoders.documents.protocol import Teacher
from steelyard.encoders.documents.sentence_transformers import SentenceTransformersEncoder
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import InputError, PackMismatchError, SteelyardError
from steelyard.indexer.distillation_job import DistillationJob, distill_pack
from steelyard.indexer.encoding.shards import read_shard
from steelyard.indexer.reading.readers import open_corpus
from steelyard.progress import SilentProgress
from steelyard.types import l2_normalise
from tests.conftest import MODEL, scifact_lines, write_jsonl

GROUP = "dev.langchain4j:langchain4j-embeddings-"
BGE = "bge-small-en-v15:1.20.0-beta30"
E5 = "e5-small-v2:1.17.0-beta27"
BGE_QUERY = "Represent this sentence for searching relevant passages: "
TEXTS = ["balance", "The heavy arm moves little.", "mRNA, 東京 and a Longer text. " * 9]
WORDS = ["<pad>", "<s>", "</s>", "x", "heavy", "light", "arm", "document", "query"]
DIMS = 4


def from_maven(artifact: str) -> Path:
    """The encoder in a jar, unpacked into the cache."""
    folder = cache_dir() / "models" / artifact.replace(":", "-")
    if is_tower(str(folder)):
        return folder
    if shutil.which("mvn") is None:
        pytest.fail("the encoder comes in a Maven artefact, and there is no mvn: install Maven")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        done = subprocess.run(
            [
                *("mvn", "-q", "-B", "dependency:copy"),
                *(f"-Dartifact={GROUP}{artifact}", f"-DoutputDirectory={place}/jar"),
            ],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (Path(place) / "tower").mkdir()
        with zipfile.ZipFile(next(Path(place, "jar").glob("*.jar"))) as jar:
            for name in jar.namelist():
                for end, file in ((".onnx", "model.onnx"), ("-tokenizer.json", "tokenizer.json")):
                    if name.endswith(end):
                        Path(place, "tower", file).write_bytes(jar.read(name))
        if not folder.exists():
            Path(place, "tower").rename(folder)
    return folder


@pytest.fixture(scope="module")
def bge() -> Path:
    return from_maven(BGE)


@pytest.fixture(scope="module")
def e5() -> Path:
    return from_maven(E5)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The demo's model, exported by the command, and what ``--json`` says of it."""
    place = tmp_path_factory.mktemp("exported")
    out, report = place / "tower", place / "report.json"
    arguments = ["--model", MODEL, "--out", str(out), "--json", str(report)]
    result = CliRunner().invoke(command.app, ["export", *arguments])
    assert result.exit_code == 0, result.output
    return out, json.loads(report.read_text(encoding="utf-8"))


# Real encoders


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
def test_pooling_by_hand(bge: Path, pooling: str) -> None:
    """A padded batch against onnxruntime on each text alone, pooled here."""
    import onnxruntime  # type: ignore[import-untyped]

    session = onnxruntime.InferenceSession(bge / "model.onnx", providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(bge / "tokenizer.json"))
    expected = []
    for text in TEXTS:
        ids = np.array([tokenizer.encode(text).ids])
        feeds = {"input_ids": ids, "attention_mask": ids * 0 + 1, "token_type_ids": ids * 0}
        states = session.run(["last_hidden_state"], feeds)[0][0]
        row = {"cls": states[0], "last": states[-1], "mean": states.sum(axis=0) / len(states)}
        expected.append(row[pooling] / np.sqrt((row[pooling] ** 2).sum()))
    found = OnnxEncoder(str(bge), pooling=pooling).encode_document(TEXTS).dense
    assert found is not None
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-5)


def titles_find_their_abstracts(encoder: OnnxEncoder) -> int:
    lines = scifact_lines(60)
    documents = encoder.encode_document([line["text"] for line in lines]).dense
    queries = encoder.encode_query([line["title"] for line in lines])
    assert documents is not None
    return int(((queries @ documents.T).argmax(axis=1) == np.arange(60)).sum())


def test_bge_finds_abstracts_by_their_titles(bge: Path) -> None:
    encoder = OnnxEncoder(str(bge), pooling="cls", max_length=128, prompts={"query": BGE_QUERY})
    assert titles_find_their_abstracts(encoder) >= 57


def test_e5_finds_abstracts_by_their_titles(e5: Path) -> None:
    prompts = {"query": "query: ", "document": "passage: "}
    encoder = OnnxEncoder(str(e5), pooling="mean", max_length=128, prompts=prompts)
    assert titles_find_their_abstracts(encoder) >= 57
    alone = np.concatenate([encoder.encode_query([text]) for text in TEXTS])
    np.testing.assert_allclose(encoder.encode_query(TEXTS), alone, atol=1e-5)
    bare = OnnxEncoder(str(e5), pooling="mean", max_length=128)
    prefixed = [f"query: {text}" for text in TEXTS]
    np.testing.assert_array_equal(bare.encode_query(prefixed), encoder.encode_query(TEXTS))
    assert bare.spec.prompts == {"document": "", "query": ""}


def test_nothing_says_how_to_pool(bge: Path) -> None:
    with pytest.raises(InputError, match="nothing says how to pool") as caught:
        OnnxEncoder(str(bge))
    assert "cls, mean or last" in caught.value.hint


# The exported tower


def test_an_exported_tower_is_its_model(exported: tuple[Path, dict[str, Any]]) -> None:
    folder, report = exported
    tower: Teacher = OnnxEncoder.from_spec(OnnxEncoder(str(folder)).spec)
    model = SentenceTransformersEncoder(MODEL, precision="float32")
    texts = [f"{line['title']} {line['text']}" for line in scifact_lines(24)]
    ours, theirs = tower.encode_document(texts).dense, model.encode_document(texts).dense
    assert ours is not None
    assert theirs is not None
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_allclose(tower.encode_query(TEXTS), model.encode_query(TEXTS), atol=1e-5)
    ids = np.array([0, 1037, 2000, 30521])
    np.testing.assert_allclose(tower.encode_tokens(ids), model.encode_tokens(ids), atol=1e-5)
    np.testing.assert_array_equal(tower.token_lengths(texts), model.token_lengths(texts))
    assert (tower.dims, tower.spec.max_length, tower.spec.pooling) == (384, 256, "mean")
    assert 0 < report["max_difference"] < 1e-5
    assert report["settings"]["export"]["method"] == "torch"
    assert {"LICENSE", "config.json", "steelyard_tower.json"} <= {f.name for f in folder.iterdir()}


def test_long_texts_are_cut_as_the_model_cuts_them(exported: tuple[Path, dict[str, Any]]) -> None:
    encoder = OnnxEncoder(str(exported[0]), max_length=12)
    long = "the heavy arm of a balance " * 500
    assert encoder.token_lengths([long, "x"]).tolist() == [12, 3]
    np.testing.assert_allclose(
        encoder.encode_query([long]),
        encoder.encode_query(["the heavy arm of a balance the heavy arm of"]),
        atol=1e-6,
    )
    with pytest.raises(InputError, match=r"max_length 513.*512"):
        OnnxEncoder(str(exported[0]), max_length=513)
    with pytest.raises(InputError, match="max_length 2, of which 2"):
        OnnxEncoder(str(exported[0]), max_length=2)


def test_a_tower_is_not_written_over_by_accident(
    exported: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="already holds a tower"):
        export_tower(ExportJob(MODEL), exported[0])
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="is not an exported tower"):
        export_tower(ExportJob(MODEL), tmp_path, overwrite=True)
    with pytest.raises(InputError, match="unknown method 'magic'"):
        ExportJob(MODEL, method="magic")
    with pytest.raises(InputError, match="unknown pooling 'max'"):
        ExportJob(MODEL, pooling="max")


def small_transformer(folder: Path, *, causal: bool = False) -> Path:
    """A plain transformers folder: a real architecture, few random weights, the real tokenizer."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel, LlamaConfig, LlamaModel

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(locate_model(MODEL))
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    options = {**sizes, "num_attention_heads": 2, "vocab_size": len(tokenizer)}
    options |= {"max_position_embeddings": 64, "pad_token_id": 0}
    made = LlamaModel(LlamaConfig(**options)) if causal else BertModel(BertConfig(**options))
    made.save_pretrained(folder)
    tokenizer.model_max_length = 48
    tokenizer.save_pretrained(folder)
    return folder


def test_a_causal_model_pools_the_last_token(tmp_path: Path) -> None:
    source = small_transformer(tmp_path / "llama", causal=True)
    with pytest.raises(InputError, match="nothing says how it pools"):
        export_tower(ExportJob(str(source)), tmp_path / "tower")
    job = ExportJob(str(source), pooling="last", max_length=40, prompts={"query": "find: "})
    made = export_tower(job, tmp_path / "tower")
    encoder = OnnxEncoder(str(made.folder))
    assert made.max_difference < 1e-5
    assert (encoder.spec.pooling, encoder.spec.max_length) == ("last", 40)
    assert encoder.spec.prompts == {"document": "", "query": "find: "}
    alone = np.concatenate([encoder.encode_query([text]) for text in TEXTS])
    np.testing.assert_allclose(encoder.encode_query(TEXTS), alone, atol=1e-5)
    again = export_tower(ExportJob(str(source), pooling="cls"), made.folder, overwrite=True)
    assert again.settings.pooling == "cls"
    assert again.settings.max_length == 48
    assert sorted(file.name for file in tmp_path.iterdir()) == ["llama", "tower"]


def test_modules_behind_the_pooling_go_into_the_graph(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer

    source = small_transformer(tmp_path / "bert")
    parts = [Transformer(str(source)), Pooling(32, "mean"), Dense(32, 8)]
    SentenceTransformer(modules=parts, device="cpu").save(str(tmp_path / "dense"))
    with pytest.raises(InputError, match=r"'Dense'. after pooling"):
        export_tower(ExportJob(str(tmp_path / "dense"), pooling="cls"), tmp_path / "tower")
    made = export_tower(ExportJob(str(tmp_path / "dense")), tmp_path / "tower")
    assert (made.dims, made.settings.pooling) == (8, "model")
    assert made.max_difference < 1e-5


def test_a_graph_that_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    source = small_transformer(tmp_path / "bert")
    with pytest.raises(SteelyardError, match=r"differs from the model by .*, over 0"):
        export_tower(ExportJob(str(source), pooling="mean"), tmp_path / "tower")
    assert [file.name for file in tmp_path.iterdir()] == ["bert"]


def test_optimum_in_its_own_environment(tmp_path: Path) -> None:
    if not list((cache_dir() / "environments").glob("optimum-*/bin/python")):
        pytest.skip(
            "the 6 GB environment is not made yet: run 'steelyard tower export --method optimum'"
        )
    source = small_transformer(tmp_path / "bert")
    made = export_tower(ExportJob(str(source), "mean", method="optimum"), tmp_path / "tower")
    assert made.max_difference < 1e-5
    assert made.settings.export["method"] == "optimum"


def test_a_program_that_fails_is_named() -> None:
    with pytest.raises(SteelyardError, match="python -m no_such_module failed with exit code 1"):
        optimum_method.run_program([sys.executable, "-m", "no_such_module"])


def test_an_environment_is_made_once_and_whole(tmp_path: Path) -> None:
    """Real environments; pip itself is the requirement, so nothing is fetched."""
    place = tmp_path / "environments" / "small"
    begun = tmp_path / "environments" / ".small.killed"
    begun.mkdir(parents=True)
    with pytest.raises(SteelyardError, match="pip failed with exit code"):
        optimum_method.environment(place, str(tmp_path / "no-such-package"))
    assert [entry.name for entry in place.parent.iterdir()] == ["small.lock"]
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda _: optimum_method.environment(place, "pip"), range(2)))
    assert made == [str(place / "bin" / "python")] * 2
    assert {entry.name for entry in place.parent.iterdir()} == {"small", "small.lock"}
    optimum_method.run_program([made[0], "-m", "pip", "--version"])


# Graphs made in memory: states are the rows of a table, so every vector is known

TABLE = np.random.default_rng(3).normal(size=(len(WORDS), DIMS)).astype(np.float32)


def tiny_tower(
    folder: Path,
    *,
    inputs: tuple[str, ...] = ("input_ids", "attention_mask"),
    kind: int = TensorProto.INT64,
    output: str = "last_hidden_state",
    external: bool = False,
    pad: str = "<pad>",
    table: NDArray[np.float32] = TABLE,
) -> Path:
    """A tower that looks tokens up; extra inputs are added to the states times zero."""
    folder.mkdir()
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["token_states"])]
    last = "token_states"
    for name in inputs[1:]:
        nodes.append(helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Unsqueeze", [f"{name}_float", "two"], [f"{name}_column"]))
        factor = "one" if name == "position_ids" else "nought"
        nodes.append(helper.make_node("Mul", [f"{name}_column", factor], [f"{name}_part"]))
        nodes.append(helper.make_node("Add", [last, f"{name}_part"], [f"with_{name}"]))
        last = f"with_{name}"
    ready = output in ("sentence_embedding", "pooled")
    final = helper.make_node("Identity", [last], [output])
    if ready:
        final = helper.make_node("ReduceSum", [last, "middle"], [output], keepdims=0)
    constants = {"table": table, "two": [2], "middle": [1], "one": 1.0, "nought": 0.0}
    floats = {"table", "one", "nought"}
    graph = helper.make_graph(
        [*nodes, final],
        "tiny",
        [helper.make_tensor_value_info(name, kind, ["b", "n"]) for name in inputs],
        [
            helper.make_tensor_value_info(
                output, TensorProto.FLOAT, ["b", DIMS] if ready else ["b", "n", DIMS]
            )
        ],
        [
            numpy_helper.from_array(np.array(v, np.float32 if k in floats else np.int64), k)
            for k, v in constants.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save_model(
        model,
        str(folder / "model.onnx"),
        save_as_external_data=external,
        location="weights.bin" if external else None,
        size_threshold=100,  # the table, not the shapes
    )
    words = [pad, *WORDS[1:]]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="x"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def unit(rows: Any) -> NDArray[np.float32]:
    return l2_normalise(np.asarray(rows, dtype=np.float32))


def test_known_vectors(tmp_path: Path) -> None:
    folder = tiny_tower(tmp_path / "tiny")
    encoder = OnnxEncoder(str(folder), pooling="mean")
    found = encoder.encode_query(["heavy arm", "light", ""])
    expected = [
        TABLE[[1, 4, 6, 2]].mean(axis=0),
        TABLE[[1, 5, 2]].mean(axis=0),
        TABLE[[1, 2]].sum(0),
    ]
    np.testing.assert_allclose(found, unit(expected), atol=1e-6)
    tokens = encoder.encode_tokens(np.array([4, 7]))
    np.testing.assert_allclose(tokens, unit(TABLE[[4, 7]] + TABLE[1] + TABLE[2]), atol=1e-6)
    assert encoder.encode_query([]).shape == (0, DIMS)
    assert encoder.spec.max_length == 512
    assert encoder.precision == "float32"
    with pytest.raises(InputError, match="graph failed on 1 texts of 3 tokens"):
        encoder.encode_tokens(np.array([99]))


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.INT32])
def test_the_graph_gets_what_it_asks_for(tmp_path: Path, kind: int) -> None:
    inputs = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
    encoder = OnnxEncoder(
        str(tiny_tower(tmp_path / "t", inputs=inputs, kind=kind)), pooling="last"
    )
    found = encoder.encode_query(["heavy arm", "light"])
    np.testing.assert_allclose(found, unit(TABLE[[2, 2]] + [[3], [2]]), atol=1e-6)


def test_a_graph_without_a_mask_never_sees_padding(tmp_path: Path) -> None:
    folder = tiny_tower(tmp_path / "t", inputs=("input_ids",), output="sentence_embedding")
    encoder = OnnxEncoder(str(folder))
    assert encoder.spec.pooling == "model"
    found = encoder.encode_query(["heavy arm", "light", "light arm"])
    rows = [TABLE[[1, 4, 6, 2]], TABLE[[1, 5, 2]], TABLE[[1, 5, 6, 2]]]
    np.testing.assert_allclose(found, unit([row.sum(axis=0) for row in rows]), atol=1e-6)


def test_a_nan_is_the_callers_to_judge(tmp_path: Path) -> None:
    table = TABLE.copy()
    table[5] = np.nan
    encoder = OnnxEncoder(str(tiny_tower(tmp_path / "t", table=table)), pooling="mean")
    finite = np.isfinite(encoder.encode_query(["heavy", "light"]))
    assert finite.all(axis=1).tolist() == [True, False]


# Spaces and settings


def test_the_space_is_the_contents(tmp_path: Path) -> None:
    folder = tiny_tower(tmp_path / "a", external=True)
    spec = OnnxEncoder(str(folder), pooling="mean").spec
    moved = shutil.copytree(folder, tmp_path / "b")
    text = json.loads((moved / "tokenizer.json").read_text(encoding="utf-8"))
    padding = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None}
    text["padding"] = {**padding, "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"}
    (moved / "tokenizer.json").write_text(json.dumps(text, indent=1), encoding="utf-8")
    assert OnnxEncoder.from_spec(spec, model=str(moved)).spec.weights == spec.weights

    text["model"]["vocab"]["scale"] = 8
    (moved / "tokenizer.json").write_text(json.dumps(text), encoding="utf-8")
    with pytest.raises(PackMismatchError, match=r"made for .*is another"):
        OnnxEncoder.from_spec(spec, model=str(moved))

    shutil.copy(folder / "tokenizer.json", moved)
    weights = bytearray((moved / "weights.bin").read_bytes())
    weights[0] ^= 1
    (moved / "weights.bin").write_bytes(weights)
    with pytest.raises(PackMismatchError, match=r"space dense-\w{16}"):
        OnnxEncoder.from_spec(spec, model=str(moved))
    (moved / "weights.bin").unlink()
    with pytest.raises(InputError, match=r"weights in 'weights.bin', not in the folder"):
        OnnxEncoder.from_spec(spec, model=str(moved))


def test_weights_outside_the_folder_are_refused(tmp_path: Path) -> None:
    folder = tiny_tower(tmp_path / "a", external=True)
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    model = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = entry.value.replace("weights.bin", "../weights.bin")
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="not in the folder"):
        OnnxEncoder(str(folder), pooling="mean")


def test_arguments_go_before_the_settings_file(tmp_path: Path) -> None:
    folder = tiny_tower(tmp_path / "t")
    stored = {"format": 1, "pooling": "cls", "prompts": {"query": "query "}, "max_length": 9}
    (folder / "steelyard_tower.json").write_text(json.dumps(stored), encoding="utf-8")
    spec = OnnxEncoder(str(folder)).spec
    assert (spec.pooling, spec.max_length) == ("cls", 9)
    assert spec.prompts == {"document": "", "query": "query "}
    changed = OnnxEncoder(
        str(folder), pooling="last", max_length=7, prompts={"document": "document "}
    )
    assert (changed.spec.pooling, changed.spec.max_length) == ("last", 7)
    assert changed.spec.prompts == {"document": "document ", "query": "query "}
    assert changed.token_lengths(["heavy arm"]).tolist() == [5]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "holds a list, not an object"),
        ('{"pooling": "cls"}', "tower format 0"),
        ('{"format": 2, "pooling": "cls"}', "tower format 2"),
        ('{"format": 1}', "field 'pooling' is missing"),
        ('{"format": 1, "pooling": "max"}', "unknown pooling 'max'"),
        ('{"format": 1, "pooling": "cls", "mood": 1}', "unknown field 'mood'"),
        ('{"format": 1, "pooling": "cls", "max_length": "9"}', "max_length: expected int"),
        ('{"format": 1, "pooling": "cls", "max_length": -1}', "max_length -1"),
        ('{"format": 1, "pooling": "cls", "prompts": {"passage": ""}}', "prompt 'passage'"),
        ('{"format": 1, "pooling": "model"}', "nothing says how to pool"),
    ],
)
def test_settings_are_read_strictly(tmp_path: Path, settings: str, message: str) -> None:
    folder = tiny_tower(tmp_path / "t")
    (folder / "steelyard_tower.json").write_text(settings, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        OnnxEncoder(str(folder))


# Hostile folders


def cut_in_half(folder: Path) -> None:
    content = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer.json in"),
        (lambda f: (f / "model.onnx").unlink(), "no model.onnx in"),
        (lambda f: shutil.rmtree(f), "no model.onnx in"),
        (cut_in_half, "no ONNX graph|cannot open"),
        (lambda f: (f / "model.onnx").write_bytes(b""), "no ONNX graph|cannot open"),
        (lambda f: (f / "model.onnx").write_bytes(b"\x00junk" * 99), "no ONNX graph|cannot open"),
        (lambda f: (f / "tokenizer.json").write_bytes(b"\xff{"), "tokenizer.json is no tokenizer"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json is no tokenizer"),
        (lambda f: (f / "config.json").write_text("no"), "config.json is not JSON"),
    ],
)
def test_damaged_folders(tmp_path: Path, harm: Callable[[Path], object], message: str) -> None:
    folder = tiny_tower(tmp_path / "t")
    harm(folder)
    with pytest.raises(InputError, match=message) as caught:
        OnnxEncoder(str(folder), pooling="mean")
    assert caught.value.hint


def test_a_tokenizer_without_padding(tmp_path: Path) -> None:
    folder = tiny_tower(tmp_path / "t", pad="nothing")
    with pytest.raises(InputError, match="has no padding token"):
        OnnxEncoder(str(folder), pooling="mean")
    named = {"pad_token": {"content": "nothing"}, "model_max_length": 21}
    (folder / "tokenizer_config.json").write_text(json.dumps(named), encoding="utf-8")
    assert OnnxEncoder(str(folder), pooling="mean").spec.max_length == 21


def test_settings_that_do_not_fit(tmp_path: Path) -> None:
    folder = str(tiny_tower(tmp_path / "t"))
    for arguments, message in (
        ({"pooling": "max"}, "unknown pooling 'max'"),
        ({"pooling": "mean", "prompts": {"passage": "p"}}, "unknown prompt 'passage'"),
        ({"pooling": "mean", "precision": "bfloat16"}, "precision 'bfloat16'"),
        ({"pooling": "mean", "device": "abacus"}, "device 'abacus'"),
        ({"pooling": "model"}, "nothing says how to pool"),
    ):
        with pytest.raises(InputError, match=message):
            OnnxEncoder(folder, **arguments)
    pooled = tiny_tower(tmp_path / "pooled", output="pooled")
    with pytest.raises(InputError, match=r"pooling 'cls'.*{'pooled': 2}"):
        OnnxEncoder(str(pooled), pooling="cls")
    assert OnnxEncoder(str(pooled)).spec.pooling == "model"


def test_a_graph_that_asks_for_more(tmp_path: Path) -> None:
    folder = tiny_tower(tmp_path / "t", inputs=("input_ids", "past_key_values"))
    with pytest.raises(InputError, match=r"asks for .*past_key_values"):
        OnnxEncoder(str(folder), pooling="mean")


def test_a_tower_is_distilled_and_opened_again(
    exported: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """The whole way of a frozen model, with the tower in the place of sentence-transformers."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", scifact_lines(30))
    job = DistillationJob(
        str(exported[0]), settings=DistillationSettings(pseudo_queries=180, epochs=1)
    )
    made = distill_pack(
        open_corpus(corpus), job, tmp_path / "pack", SilentProgress(), shards=tmp_path / "shards"
    )
    assert made.metadata.document_encoder.kind == "onnx"
    assert document_precision(made.metadata) == "float32"
    pack = QueryEncoder.load(tmp_path / "pack")
    texts = [f"{line['title']} {line['text']}" for line in scifact_lines(3)]
    again = open_document_encoder(pack).encode_document(texts)
    stored = read_shard(made.shards / made.manifest.shards[0].name)
    assert again.dense is not None
    assert again.sparse is not None
    np.testing.assert_allclose(again.dense, stored.dense[:3], atol=1e-5)
    assert len(again.sparse) == 3
