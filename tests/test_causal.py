"""The causal tower: architectures, adapters, the sparse head, faults, bad input."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from steelyard.encoders.causal import build
from steelyard.encoders.causal.build import BuildJob, build_pack
from steelyard.encoders.causal.source import locate_causal_model
from steelyard.encoders.causal.sparse_head import (
    heaviest_terms,
    max_logits,
    term_weights,
)
from steelyard.encoders.causal.table import TableRows, naive_rows
from steelyard.encoders.causal.tower import CausalEncoder
from steelyard.encoders.documents.from_pack import open_document_encoder
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import InputError, PackMismatchError, SteelyardError
from steelyard.eval.bench.causal import bench_documents, bench_table
from steelyard.progress import SilentProgress
from tests import tiny_causal
from tests.conftest import scifact_lines
from tests.tiny_causal import (
    FAMILIES,
    HIDDEN,
    SPARE_ROWS,
    byte_level,
    write_model,
    write_tokenizer,
)

PROMPT = "Instruct: find passages\nQuery: "
TASKS = {"default": "find passages", "claims": "find evidence for a claim"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="module")
def tower(folder: Path) -> CausalEncoder:
    return CausalEncoder(str(folder), max_length=64, max_terms=None)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [f"{d['title']} {d['text']}" for d in scifact_lines(12)]


def _job(folder: Path, **changes: Any) -> BuildJob:
    values: dict[str, Any] = {"model": str(folder), "tasks": TASKS, "max_length": 64, **changes}
    return BuildJob(**values)


def _by_hand(tower: CausalEncoder, text: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """One document alone, every logit at once."""
    ids = tower.tokens.ids([text], tower.spec.max_length)
    with torch.inference_mode():
        hidden = tower.model.backbone(input_ids=torch.tensor(ids)).last_hidden_state[0]
        logits = tower.model.head(hidden[1:-1])[:, : tower.vocabulary_size]
    cap = tower.model.logit_cap
    if cap:
        logits = torch.tanh(logits / cap) * cap
    dense = hidden[-1] / hidden[-1].norm()
    return dense.numpy(), torch.log1p(torch.relu(logits.amax(dim=0))).numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_architectures(family: str, tmp_path: Path, texts: list[str]) -> None:
    """A batch gives what each document gives alone, and the table what the naive way gives."""
    tower = CausalEncoder(
        str(write_model(tmp_path / family, family)), max_length=64, max_terms=None
    )
    found = tower.encode_document([*texts, "short"])
    assert found.dense is not None
    assert found.sparse is not None
    matrix = found.sparse.to_csr().toarray()
    for row, text in enumerate([*texts, "short"]):
        dense, weights = _by_hand(tower, text)
        np.testing.assert_allclose(found.dense[row], dense, atol=1e-5)
        np.testing.assert_allclose(matrix[row], weights, atol=1e-4)
    ids = np.arange(0, tower.vocabulary_size, 13)
    shared = TableRows(tower.model, tower.tokens, PROMPT).rows(ids)
    np.testing.assert_allclose(
        shared, naive_rows(tower.model, tower.tokens, PROMPT, ids), atol=1e-5
    )


def test_a_tokenizer_that_turns_spaces_into_letters(tower: CausalEncoder) -> None:
    """Llama 2's kind: a made pad and sep take two of the spare rows."""
    assert tower.tokens.made == ("<|reserved_special_token_0|>", "<|reserved_special_token_1|>")
    assert tower.tokens.rows == tower.model.rows - SPARE_ROWS + 2
    assert tower.tokens.pad == tower.tokens.rows - 2
    (row,) = tower.tokens.ids(["Heavy CELLS"], 64)
    assert row[0] == tower.tokens.bos
    assert row[-1] == tower.tokens.eos
    assert row == tower.tokens.ids(["heavy cells"], 64)[0]


@pytest.mark.parametrize("slice_tokens", [1, 5, 64, 1000])
def test_the_sparse_head_in_slices(slice_tokens: int) -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(16, 50)
    counts = [3, 0, 11, 1, 40]
    hidden = torch.randn(sum(counts), 16)
    with torch.inference_mode():
        found = max_logits(hidden, counts, head, 47, slice_tokens)
        logits = head(hidden)[:, :47]
    ends = np.cumsum(counts)
    for row, (count, end) in enumerate(zip(counts, ends, strict=True)):
        expected = (
            logits[end - count : end].amax(dim=0) if count else torch.full((47,), -torch.inf)
        )
        torch.testing.assert_close(found[row], expected)
    weights = term_weights(found.clone())
    assert heaviest_terms(weights, None).row(1)[0].size == 0
    np.testing.assert_array_equal(
        heaviest_terms(weights, None).to_csr().toarray(), weights.numpy()
    )


def test_a_head_that_is_no_plain_matrix(tower: CausalEncoder, texts: list[str]) -> None:
    """A head spread over shards or wrapped by another library is called, not read."""

    class Sharded(torch.nn.Module):
        def __init__(self, head: torch.nn.Linear) -> None:
            super().__init__()
            self.parts = torch.nn.ModuleList()
            for weight in torch.split(head.weight.detach(), 300):
                part = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
                part.weight = torch.nn.Parameter(weight.clone())
                self.parts.append(part)

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return torch.cat([part(hidden) for part in self.parts], dim=-1)

    hidden = torch.randn(30, HIDDEN)
    with torch.inference_mode():
        plain = max_logits(hidden, [10, 20], tower.model.head, tower.vocabulary_size, 7)
        sharded = max_logits(hidden, [10, 20], Sharded(tower.model.head), tower.vocabulary_size, 7)
    torch.testing.assert_close(plain, sharded)


def test_equal_weights_are_cut_by_id() -> None:
    weights = torch.tensor([[0.5, 1.0, 0.5, 0.5, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, 3.0]])
    kept = heaviest_terms(weights, 3)
    assert kept.row(0)[0].tolist() == [0, 1, 4]
    assert kept.row(1)[0].tolist() == [5]


def test_a_pack_of_two_instructions(folder: Path, tmp_path: Path, tower: CausalEncoder) -> None:
    metadata = build_pack(_job(folder), tmp_path / "pack", SilentProgress(), work=tmp_path / "w")
    queries = QueryEncoder.load(tmp_path / "pack")
    assert list(queries.tables) == ["default", "claims"]
    (one,) = queries.encode_dense(["heavy cells"])
    (other,) = queries.encode_dense(["heavy cells"], instruction="claims")
    assert not np.allclose(one, other)
    prompt = metadata.dense.tables["claims"]
    rows = naive_rows(tower.model, tower.tokens, prompt, np.arange(9))
    np.testing.assert_allclose(queries.tables["claims"].rows[:9], rows, atol=1e-5)
    with pytest.raises(InputError, match=r"no instruction 'web'.*known: claims, default"):
        queries.encode_query("heavy", instruction="web")


def test_a_killed_build_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that were finished are not made again, and the pack is the same to the bit."""
    monkeypatch.setattr(build, "CHUNK_ROWS", 100)
    whole = build_pack(
        _job(folder, all_rows=True), tmp_path / "whole", SilentProgress(), work=tmp_path / "a"
    )
    made: list[int] = []
    real = TableRows.rows

    def killed(self: TableRows, ids: NDArray[np.int64], advance: Any = None) -> Any:
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append(int(ids[0]))
        return real(self, ids, advance)

    monkeypatch.setattr(TableRows, "rows", killed)
    with pytest.raises(KeyboardInterrupt):
        build_pack(
            _job(folder, all_rows=True), tmp_path / "again", SilentProgress(), work=tmp_path / "b"
        )
    assert not (tmp_path / "again").exists()
    (damaged, *_) = sorted((tmp_path / "b").glob("*/*.npy"))
    damaged.write_bytes(damaged.read_bytes()[:50])
    seen: list[int] = []

    def counted(self: TableRows, ids: NDArray[np.int64], advance: Any = None) -> Any:
        seen.append(int(ids[0]))
        return real(self, ids, advance)

    monkeypatch.setattr(TableRows, "rows", counted)
    again = build_pack(
        _job(folder, all_rows=True), tmp_path / "again", SilentProgress(), work=tmp_path / "b"
    )
    assert again.pack_id == whole.pack_id
    assert seen[:2] == [0, 400]
    assert list((tmp_path / "b").iterdir()) == []


def _adapter(folder: Path, out: Path, *, backbone: bool, **changes: Any) -> Any:
    """A LoRA adapter of random weights, written by peft; returns the model it is in."""
    import peft
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    target = model.base_model if backbone else model
    config = peft.LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"],
        init_lora_weights=False,
        **{"task_type": "FEATURE_EXTRACTION", **changes},
    )
    torch.manual_seed(5)
    wrapped = peft.get_peft_model(target, config)
    wrapped.save_pretrained(str(out))
    return model.eval()


@pytest.mark.parametrize(
    ("backbone", "task"),
    [(False, "FEATURE_EXTRACTION"), (True, "FEATURE_EXTRACTION"), (False, "CAUSAL_LM")],
    ids=["hybrid", "backbone", "causal"],
)
def test_adapters(
    backbone: bool, task: str, folder: Path, tmp_path: Path, tower: CausalEncoder, texts: list[str]
) -> None:
    """LightRetriever's hybrid checkpoints, its dense ones, and what everybody else writes."""
    model = _adapter(folder, tmp_path / "adapter", backbone=backbone, task_type=task)
    adapted = CausalEncoder(str(folder), adapter=str(tmp_path / "adapter"), max_length=64)
    assert adapted.spec.weights != tower.spec.weights
    ids = adapted.tokens.ids(texts[:1], 64)
    with torch.inference_mode():
        state = model.base_model(input_ids=torch.tensor(ids)).last_hidden_state[0, -1]
    found = adapted.encode_document(texts).dense
    plain = tower.encode_document(texts).dense
    assert found is not None
    assert plain is not None
    np.testing.assert_allclose(found[0], (state / state.norm()).numpy(), atol=1e-5)
    assert np.abs(found - plain).max() > 0.01


def test_an_adapter_brings_its_edited_tokenizer(folder: Path, tmp_path: Path) -> None:
    _adapter(folder, tmp_path / "adapter", backbone=True)
    tokenizer = tiny_causal.sentencepiece_like()
    tokenizer.add_special_tokens(["<extra>"])
    write_tokenizer(tmp_path / "adapter", tokenizer, bos="<extra>", eos="</s>")
    adapted = CausalEncoder(str(folder), adapter=str(tmp_path / "adapter"))
    assert adapted.tokens.bos == tokenizer.token_to_id("<extra>")


def test_a_merged_checkpoint_is_another_space_of_the_same_vectors(
    folder: Path, tmp_path: Path, texts: list[str]
) -> None:
    import peft
    import transformers

    _adapter(folder, tmp_path / "adapter", backbone=False)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    merged = peft.PeftModel.from_pretrained(model, str(tmp_path / "adapter")).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, tmp_path / "merged" / name)
    adapted = CausalEncoder(str(folder), adapter=str(tmp_path / "adapter"))
    alone = CausalEncoder(str(tmp_path / "merged"))
    one, other = adapted.encode_document(texts).dense, alone.encode_document(texts).dense
    assert one is not None
    assert other is not None
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_an_adapter_for_another_base(folder: Path, tmp_path: Path) -> None:
    wide = write_model(tmp_path / "wide", hidden_size=64, head_dim=16)
    _adapter(wide, tmp_path / "adapter", backbone=True)
    with pytest.raises(InputError, match=r"width 64, the model's has 32.*made for"):
        CausalEncoder(str(folder), adapter=str(tmp_path / "adapter"))
    deep = write_model(tmp_path / "deep", num_hidden_layers=3)
    _adapter(deep, tmp_path / "deeper", backbone=True)
    with pytest.raises(InputError, match=r"layers.2.*has no place"):
        CausalEncoder(str(folder), adapter=str(tmp_path / "deeper"))
    _adapter(folder, tmp_path / "shallower", backbone=True)
    with pytest.raises(InputError, match=r"adapts 12 layers, the model has 18 of their kind"):
        CausalEncoder(str(deep), adapter=str(tmp_path / "shallower"))


def test_an_adapter_with_its_own_head(folder: Path, tmp_path: Path) -> None:
    """What an adapter saves whole takes the place of the base's."""
    model = _adapter(folder, tmp_path / "adapter", backbone=False, modules_to_save=["lm_head"])
    head = model.lm_head.modules_to_save["default"]
    with torch.no_grad():
        head.weight.add_(1.0)
    from safetensors.torch import load_file, save_file

    file = tmp_path / "adapter" / "adapter_model.safetensors"
    weights = load_file(file)
    (name,) = (name for name in weights if "lm_head" in name)
    weights[name] = head.weight.detach().clone()
    save_file(weights, file, metadata={"format": "pt"})
    tower = CausalEncoder(str(folder), adapter=str(tmp_path / "adapter"))
    torch.testing.assert_close(tower.model.head.weight, head.weight)


def test_an_adapter_of_a_grown_vocabulary(folder: Path, tmp_path: Path) -> None:
    """Trained after the embedding was given rows for new tokens, which the adapter carries."""
    import peft
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    rows = model.get_input_embeddings().weight.shape[0] + 8
    model.resize_token_embeddings(rows)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    wrapped = peft.get_peft_model(model, config)
    wrapped.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=True)
    tower = CausalEncoder(str(folder), adapter=str(tmp_path / "adapter"))
    assert tower.model.rows == rows
    torch.testing.assert_close(
        tower.model.backbone.get_input_embeddings().weight.detach(),
        model.get_input_embeddings().weight.detach(),
    )
    torch.testing.assert_close(
        tower.model.head.weight.detach(), model.get_output_embeddings().weight.detach()
    )


@pytest.mark.parametrize("damage", ["weights", "config", "rank"])
def test_a_damaged_adapter(damage: str, folder: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    _adapter(folder, adapter, backbone=True)
    config = adapter / "adapter_config.json"
    if damage == "weights":
        file = adapter / "adapter_model.safetensors"
        file.write_bytes(file.read_bytes()[:100])
    elif damage == "config":
        config.write_text("{", encoding="utf-8")
    else:
        config.write_text(config.read_text().replace('"r": 4', '"r": 3'), encoding="utf-8")
    with pytest.raises(InputError, match=r"adapter"):
        CausalEncoder(str(folder), adapter=str(adapter))


def test_an_adapter_in_a_model_folder_is_not_merged_silently(folder: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    shutil.copytree(folder, both)
    _adapter(folder, both, backbone=True)
    with pytest.raises(InputError, match="a model and an adapter"):
        CausalEncoder(str(both))
    _adapter(folder, tmp_path / "alone", backbone=True)
    with pytest.raises(InputError, match=r"is an adapter, not a model.*--adapter"):
        CausalEncoder(str(tmp_path / "alone"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_precisions(precision: str, folder: Path, tower: CausalEncoder, texts: list[str]) -> None:
    other = CausalEncoder(str(folder), max_length=64, max_terms=None, precision=precision)
    assert other.precision == precision
    one, found = tower.encode_document(texts), other.encode_document(texts)
    assert one.dense is not None
    assert found.dense is not None
    assert (one.dense * found.dense).sum(axis=1).min() > 0.99
    rows = TableRows(other.model, other.tokens, PROMPT).rows(np.arange(64))
    exact = TableRows(tower.model, tower.tokens, PROMPT).rows(np.arange(64))
    cosine = (rows * exact).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(exact, axis=1)
    assert cosine.min() > 0.99


def test_a_long_document_is_cut_before_eos(tower: CausalEncoder) -> None:
    text = " ".join(["heavy cells"] * 500)
    (row,) = tower.tokens.ids([text], 64)
    assert len(row) == 64
    assert row[-1] == tower.tokens.eos
    assert tower.token_lengths([text, "cells"])[0] == 64


def test_a_document_without_tokens(tower: CausalEncoder) -> None:
    found = tower.encode_document(["", "cells"])
    assert found.sparse is not None
    assert found.dense is not None
    assert found.sparse.row(0)[0].size == 0
    assert np.linalg.norm(found.dense, axis=1) == pytest.approx([1, 1])


def test_a_batch_too_large_for_memory_is_halved(
    folder: Path, texts: list[str], tower: CausalEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device is made to refuse more than 200 tokens, which no real one does on demand."""
    said: list[str] = []
    small = CausalEncoder(str(folder), max_length=64, max_terms=None, say=said.append)
    sizes: list[int] = []
    real = small.model.backbone.forward

    def refusing(input_ids: torch.Tensor, **rest: Any) -> Any:
        sizes.append(input_ids.numel())
        if input_ids.numel() > 200:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(input_ids=input_ids, **rest)

    monkeypatch.setattr(small.model.backbone, "forward", refusing)
    found, expected = small.encode_document(texts), tower.encode_document(texts)
    np.testing.assert_allclose(found.dense, expected.dense, atol=1e-5)  # type: ignore[arg-type]
    assert found.sparse is not None
    assert expected.sparse is not None
    np.testing.assert_array_equal(found.sparse.ids, expected.sparse.ids)
    assert "going on with half" in said[-1]
    tried = len(sizes)
    small.encode_document(texts)
    assert all(size <= 200 for size in sizes[tried:])  # what failed once is not tried again
    monkeypatch.setattr(
        small.model.backbone, "forward", lambda **_: (_ for _ in ()).throw(MemoryError())
    )
    with pytest.raises(SteelyardError, match="does not fit in memory"):
        small.encode_document(["heavy cells"])


def test_rows_that_are_not_finite(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.embed_tokens.weight"][300] = torch.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SteelyardError, match=r"1 of .* rows are NaN or infinite.*token 300"):
        build_pack(
            _job(broken, all_rows=True), tmp_path / "pack", SilentProgress(), work=tmp_path / "w"
        )


def test_a_missing_bos_takes_a_spare_row_or_is_refused(folder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    tokenizer = byte_level()
    write_tokenizer(bare, tokenizer)
    said: list[str] = []
    found = CausalEncoder(str(bare), say=said.append)
    made = ("<|bos|>", "<|eos|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>")
    assert found.tokens.made == made
    assert found.tokens.rows == tokenizer.get_vocab_size() + 4
    assert "made" in said[0]
    full = write_model(tmp_path / "full", vocab_size=tokenizer.get_vocab_size())
    write_tokenizer(full, tokenizer)
    with pytest.raises(InputError, match=r"602 tokens \(<\|bos\|>, <\|eos\|>.*embedding 600 rows"):
        CausalEncoder(str(full))


def test_special_tokens_of_another_model(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    write_tokenizer(other, tiny_causal.sentencepiece_like(), bos="<|begin|>", eos="</s>")
    with pytest.raises(InputError, match=r"the bos token '<\|begin\|>' is not in the tokenizer"):
        CausalEncoder(str(other))


def test_more_tokens_than_rows(folder: Path, tmp_path: Path) -> None:
    small = write_model(tmp_path / "small", vocab_size=500)
    with pytest.raises(InputError, match="the tokenizer has 700 tokens, the embedding 500 rows"):
        CausalEncoder(str(small))


def test_a_checkpoint_without_an_lm_head(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    headless = tmp_path / "headless"
    shutil.copytree(folder, headless)
    weights = load_file(headless / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, headless / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="no LM head"):
        CausalEncoder(str(headless))
    assert CausalEncoder(str(headless), sparse=False).encode_document(["cells"]).sparse is None
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, headless / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 weights.*up_proj"):
        CausalEncoder(str(headless), sparse=False)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("/nowhere/at/all", "no model folder"),
        ("pytest", "carries no GGUF model"),
    ],
)
def test_no_such_model(model: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        CausalEncoder(model)


def test_a_folder_without_a_model(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match=r"no config.json and 0 GGUF files"):
        CausalEncoder(str(tmp_path))
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    shutil.copy(folder / "config.json", pickled)
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickled"):
        CausalEncoder(str(pickled))


def test_settings_that_cannot_be() -> None:
    for changes, words in (
        ({"sparse": "splade"}, "unknown sparse kind 'splade'"),
        ({"tasks": {}}, "no instruction"),
        ({"tasks": {"a b": "x"}}, "instruction name 'a b'"),
        ({"prompt_template": "Query: "}, "no {task}"),
        ({"dtype": "int4"}, "unknown table dtype"),
    ):
        with pytest.raises(InputError, match=words):
            _job(Path("model"), **changes)


def test_a_pack_opens_its_tower_again(folder: Path, tmp_path: Path, texts: list[str]) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    build_pack(_job(folder), tmp_path / "pack", SilentProgress(), work=tmp_path / "w")
    pack = QueryEncoder.load(tmp_path / "pack")
    again = open_document_encoder(pack, model=str(moved)).encode_document(texts)
    first = CausalEncoder(str(folder), max_length=64).encode_document(texts)
    np.testing.assert_array_equal(again.dense, first.dense)
    other = write_model(tmp_path / "other", num_hidden_layers=1)
    with pytest.raises(PackMismatchError, match="another"):
        open_document_encoder(pack, model=str(other))


def test_what_a_space_depends_on(folder: Path, tmp_path: Path) -> None:
    first = build_pack(_job(folder), tmp_path / "a", SilentProgress(), work=tmp_path / "w")
    tables = build_pack(
        _job(folder, tasks={"default": "another task"}, dtype="int8"),
        tmp_path / "b",
        SilentProgress(),
        work=tmp_path / "w",
    )
    assert tables.spaces == first.spaces
    assert tables.pack_id != first.pack_id
    shorter = build_pack(
        _job(folder, max_length=32), tmp_path / "c", SilentProgress(), work=tmp_path / "w"
    )
    fewer = build_pack(
        _job(folder, max_terms=9), tmp_path / "d", SilentProgress(), work=tmp_path / "w"
    )
    assert shorter.spaces.dense != first.spaces.dense
    assert shorter.spaces.sparse != first.spaces.sparse
    assert fewer.spaces.dense == first.spaces.dense
    assert fewer.spaces.sparse != first.spaces.sparse


def test_the_benchmarks_report(tower: CausalEncoder, texts: list[str]) -> None:
    table = bench_table(tower, PROMPT, 40, rounds=1)
    assert table.rows == 40
    assert table.largest_difference < 1e-5
    documents = bench_documents(tower, texts, rounds=1)
    assert documents.tokens == int(tower.token_lengths(texts).sum())
    assert documents.head_bound_bytes == (256 + 2 * 12) * tower.vocabulary_size * 4
    assert json.dumps({**table.to_dict(), **documents.to_dict()})


MEASURED = """
import sys, torch
from steelyard.encoders.causal.model import CausalModel
from steelyard.encoders.causal.sparse_head import sparse_head
from steelyard.eval.bench.peak_memory import peak_memory
size, slice_tokens, counts = 60_000, 64, [50] * 40
max_terms = int(sys.argv[1]) or None
head = torch.nn.Linear(16, size, bias=False)
device = torch.device("cpu")
model = CausalModel(None, head, 1.0, None, device, "float32", 16, size, "llama")
hidden = torch.randn(sum(counts), 16)
with torch.inference_mode():
    sparse_head(hidden, counts, model, size, max_terms, slice_tokens)
    with peak_memory("cpu") as measured:
        found = sparse_head(hidden, counts, model, size, max_terms, slice_tokens)
kept = found.ids.nbytes + found.weights.nbytes
print(measured.extra_bytes or 0, (slice_tokens + 2 * len(counts)) * size * 4, kept)
"""


@pytest.mark.parametrize("max_terms", [256, 0])
def test_the_sparse_head_keeps_to_its_memory(max_terms: int) -> None:
    """A vocabulary of 60,000 for 40 documents: all logits at once would take 480 MB.

    Measured in a process of its own, where nothing else takes and gives memory.
    """
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(max_terms)],
        capture_output=True,
        text=True,
        check=True,
    )
    extra, bound, kept = map(int, done.stdout.split())
    assert extra <= bound + 2 * kept


@pytest.mark.parametrize("family", ["mistral", "gemma2"])
@pytest.mark.parametrize("window", [16, 64])
def test_a_window_shorter_than_a_sequence(family: str, window: int, tmp_path: Path) -> None:
    """Blocks of a shared prompt do not slide out of a window; where they would, rows are naive."""
    folder = write_model(tmp_path / family, family, sliding_window=window)
    tower = CausalEncoder(str(folder), max_length=64)
    prompt = PROMPT if window == 64 else PROMPT * 3
    maker = TableRows(tower.model, tower.tokens, prompt)
    ids = np.arange(0, tower.vocabulary_size, 9)
    expected = naive_rows(tower.model, tower.tokens, prompt, ids)
    np.testing.assert_allclose(maker.rows(ids), expected, atol=1e-4)
    assert maker.shared == (window == 64)


def test_a_family_that_cannot_share_a_prompt(tmp_path: Path) -> None:
    """Bloom's positions are no inputs: the table is made naively, and the user is told."""
    folder = write_model(tmp_path / "bloom", "bloom", n_head=4, n_layer=2)
    tower = CausalEncoder(str(folder), max_length=64)
    maker = TableRows(tower.model, tower.tokens, PROMPT)
    ids = np.arange(50)
    assert not maker.shared
    expected = naive_rows(tower.model, tower.tokens, PROMPT, ids)
    np.testing.assert_allclose(maker.rows(ids), expected, atol=1e-5)


def test_query_ids_of_a_letter_for_spaces(folder: Path, tmp_path: Path) -> None:
    """Llama 2's kind: the dense arm reads the query, the sparse one a space and the query."""
    build_pack(_job(folder), tmp_path / "pack", SilentProgress(), work=tmp_path / "w")
    queries = QueryEncoder.load(tmp_path / "pack")
    tokenizer = tiny_causal.sentencepiece_like()
    for text in ("Heavy Cells", "東京 e\u0301", "<0x41>", " padded "):
        dense = tokenizer.encode(text.lower(), add_special_tokens=False).ids
        sparse = tokenizer.encode(" " + text.lower(), add_special_tokens=False).ids
        rows = np.asarray(queries.tables["default"].rows)[dense].mean(axis=0)
        found = queries.encode_query(text)
        np.testing.assert_allclose(found.dense[0], rows / np.linalg.norm(rows), atol=1e-5)
        ids, counts = np.unique(sparse, return_counts=True)
        np.testing.assert_array_equal(found.sparse.row(0)[0], ids)
        np.testing.assert_array_equal(found.sparse.row(0)[1], counts)


def test_a_named_padding_token_takes_no_part(folder: Path, tmp_path: Path) -> None:
    named = tmp_path / "named"
    shutil.copytree(folder, named)
    tokenizer = tiny_causal.sentencepiece_like()
    write_tokenizer(named, tokenizer, bos="<s>", eos="</s>", pad="<unk>")
    build_pack(_job(named), tmp_path / "pack", SilentProgress(), work=tmp_path / "w")
    queries = QueryEncoder.load(tmp_path / "pack")
    assert queries.metadata.dense.ignored_ids == [tokenizer.token_to_id("<unk>")]
    assert queries.metadata.sparse.ignored_ids == []


def test_settings_of_the_model_are_part_of_its_space(folder: Path, tmp_path: Path) -> None:
    plain = locate_causal_model(str(folder)).weights_hash()
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for changes, same in (({"transformers_version": "1"}, True), ({"rms_norm_eps": 0.1}, False)):
        text = json.dumps({**config, **changes})
        (changed / "config.json").write_text(text, encoding="utf-8")
        assert (locate_causal_model(str(changed)).weights_hash() == plain) == same


def test_rows_for_some_queries(folder: Path, tmp_path: Path, tower: CausalEncoder) -> None:
    """Those queries are as with the whole table; a query of other words is empty."""
    wanted = ["Heavy cells", "light documents"]
    for name, changes in (("whole", {}), ("some", {"rows_for": wanted})):
        build_pack(_job(folder, **changes), tmp_path / name, SilentProgress(), work=tmp_path / "w")
    whole, some = (QueryEncoder.load(tmp_path / name) for name in ("whole", "some"))
    np.testing.assert_allclose(some.encode_dense(wanted), whole.encode_dense(wanted), atol=1e-5)
    made = np.flatnonzero(np.asarray(some.tables["claims"].rows).any(axis=1))
    ids = {i for row in tower.tokens.ids(wanted, 64) for i in row[1:-1]}
    assert made.tolist() == sorted(ids)
    assert some.metadata.provenance["rows_made"] == len(ids)
    assert some.metadata.spaces == whole.metadata.spaces
    with pytest.raises(InputError, match="no token in the queries"):
        build_pack(_job(folder, rows_for=[""]), tmp_path / "none", SilentProgress())
    with pytest.raises(InputError, match="choose one"):
        _job(folder, rows_for=wanted, all_rows=True)


def test_rows_of_other_queries_are_not_taken_for_these(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tower: CausalEncoder
) -> None:
    seven, eight = (set(tower.tokens.ids([text], 64)[0][1:-1]) for text in "78")
    assert len(seven) == len(eight)
    assert seven != eight

    def killed(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    job = _job(folder, rows_for=["7"])
    with monkeypatch.context() as patch:
        patch.setattr(build, "write_pack", killed)
        with pytest.raises(KeyboardInterrupt):
            build_pack(job, tmp_path / "pack", SilentProgress(), work=tmp_path / "w")
    job = _job(folder, rows_for=["8"])
    build_pack(job, tmp_path / "pack", SilentProgress(), work=tmp_path / "w")
    table = np.asarray(QueryEncoder.load(tmp_path / "pack").tables["default"].rows)
    ids = np.array(sorted(eight))
    expected = naive_rows(tower.model, tower.tokens, _job(folder).prompts["default"], ids)
    np.testing.assert_allclose(table[ids], expected, atol=1e-5)


def test_one_task_under_two_names(folder: Path, tmp_path: Path) -> None:
    job = _job(folder, tasks={"default": "find", "again": "find"})
    build_pack(job, tmp_path / "pack", SilentProgress(), work=tmp_path / "w")
    tables = QueryEncoder.load(tmp_path / "pack").tables
    np.testing.assert_array_equal(tables["default"].rows, tables["again"].rows)


def test_special_tokens_that_only_the_class_knows(folder: Path, tmp_path: Path) -> None:
    """GPT-2's kind of tokenizer_config.json names none; transformers' class has them."""
    silent = tmp_path / "silent"
    shutil.copytree(folder, silent)
    (silent / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    tokens = CausalEncoder(str(silent)).tokens
    tokenizer = tiny_causal.sentencepiece_like()
    assert (tokens.bos, tokens.eos) == (
        tokenizer.token_to_id("<s>"),
        tokenizer.token_to_id("</s>"),
    )


def test_half_a_character(tower: CausalEncoder) -> None:
    assert tower.tokens.ids(["\ud83d heavy"], 64) == tower.tokens.ids(["\ufffd heavy"], 64)


def test_a_device_that_is_not_there(folder: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(InputError, match="cannot be put on cuda"):
        CausalEncoder(str(folder), device="cuda")
