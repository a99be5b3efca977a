"""Full queries, whose prompt is read once: the same vectors as of each text read alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from steelyard.encoders.causal.continued_cache import ContinuedCache
from steelyard.encoders.causal.prompt_cache import PromptCache, read_prompt
from steelyard.encoders.causal.tower import CausalEncoder
from tests.tiny_causal import FAMILIES, byte_level, write_model, write_tokenizer

PROMPT = "Instruct: find passages\nQuery: "
LONG = "cells of the heavy marrow are not seen in " * 12
QUERIES = ["heavy cells", "x", "", " padded ", "1 number first", "東京 e\u0301", LONG]


def _alone(tower: CausalEncoder, prompt: str, text: str, limit: int = 512) -> NDArray[np.float32]:
    ids = tower.tokens.ids([prompt + text], limit)
    with torch.inference_mode():
        hidden = tower.model.backbone(input_ids=torch.tensor(ids), use_cache=False)
    last = hidden.last_hidden_state[0, -1]
    vector: NDArray[np.float32] = (last / last.norm()).numpy()
    return vector


def _check(tower: CausalEncoder, prompt: str = PROMPT, limit: int = 512) -> None:
    expected = np.stack([_alone(tower, prompt, text, limit) for text in QUERIES])
    np.testing.assert_allclose(tower.encode_query(QUERIES), expected, atol=2e-5)
    for text, vector in zip(QUERIES, expected, strict=True):
        np.testing.assert_allclose(tower.encode_query([text])[0], vector, atol=2e-5)


def _shared(tower: CausalEncoder) -> bool:
    """Whether the prompt of the last queries was read once."""
    cache = tower._prompt
    return cache is not None and cache.shared


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_gives_what_each_query_gives_alone(family: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path / family, family)
    tower = CausalEncoder(str(folder), query_prompt=PROMPT)
    _check(tower)
    assert _shared(tower)
    assert tower.encode_query([]).shape == (0, tower.dims)


@pytest.mark.parametrize("prompt", ["", "a", PROMPT * 4])
def test_prompts(prompt: str, tmp_path: Path) -> None:
    """None at all, one that is not worth it, and one that is cut with its query."""
    folder = write_model(tmp_path / "model")
    tower = CausalEncoder(str(folder), query_prompt=prompt, query_max_length=40)
    _check(tower, prompt, 40)
    assert _shared(tower) == (len(prompt) > 1)


def test_a_prompt_whose_last_character_joins_the_query(tmp_path: Path) -> None:
    """GPT-2's pattern takes the space before a word with it: the prompt's own is no prefix."""
    folder = write_model(tmp_path / "model")
    write_tokenizer(folder, byte_level())
    tower = CausalEncoder(str(folder), query_prompt=PROMPT)
    alone = tower.tokens.prompt_ids(PROMPT)
    (row,) = tower.tokens.ids(["heavy"], 64, PROMPT)
    assert row[: len(alone)] != alone
    assert row[: len(alone) - 1] == alone[:-1]
    _check(tower)
    assert _shared(tower)


@pytest.mark.parametrize("family", ["mistral", "gemma2"])
def test_queries_longer_than_a_window(family: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path / family, family, sliding_window=16)
    tower = CausalEncoder(str(folder), query_prompt=PROMPT)
    _check(tower)
    assert _shared(tower)


def test_a_family_whose_positions_are_no_inputs(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "bloom", "bloom", n_head=4, n_layer=2)
    tower = CausalEncoder(str(folder), query_prompt=PROMPT)
    _check(tower)
    assert _shared(tower)


class _Forgetful(torch.nn.Module):
    """Ignores what was read before."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self._backbone = backbone

    def forward(self, input_ids: torch.Tensor, past_key_values: Any, use_cache: bool) -> Any:
        states = self._backbone(input_ids=input_ids, use_cache=False)
        if past_key_values is not None:
            self._backbone(
                input_ids=input_ids, past_key_values=past_key_values, use_cache=use_cache
            )
        return states


def test_a_model_that_does_not_go_on_from_a_prompt_reads_it_anew(tmp_path: Path) -> None:
    tower = CausalEncoder(str(write_model(tmp_path / "model")), query_prompt=PROMPT)
    expected = np.stack([_alone(tower, PROMPT, text) for text in QUERIES])
    tower.model = replace(tower.model, backbone=_Forgetful(tower.model.backbone))
    cache = PromptCache(tower.model, tower.tokens.prompt_ids(PROMPT), tower.tokens.eos)
    assert not cache.shared
    np.testing.assert_allclose(tower.encode_query(QUERIES), expected, atol=2e-5)


def test_half_precision(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    tower, exact = (
        CausalEncoder(str(folder), query_prompt=PROMPT, precision=precision)
        for precision in ("bfloat16", "float32")
    )
    cosine = (tower.encode_query(QUERIES) * exact.encode_query(QUERIES)).sum(axis=1)
    assert cosine.min() > 0.999
    assert _shared(tower)


class _Tight(torch.nn.Module):
    """Runs out of memory in the middle of a batch of more than two texts."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.sizes: list[int] = []

    def forward(self, input_ids: torch.Tensor, **rest: Any) -> Any:
        self.sizes.append(len(input_ids))
        states = self.backbone(input_ids=input_ids, **rest)
        if len(input_ids) > 2:
            raise MemoryError
        return states


def test_memory_that_runs_out_halves_the_batch(tmp_path: Path) -> None:
    tower = CausalEncoder(str(write_model(tmp_path / "model")), query_prompt=PROMPT)
    expected = tower.encode_query(QUERIES)
    tight = _Tight(tower.model.backbone)
    tower.model = replace(tower.model, backbone=tight)
    tower._prompt = PromptCache(tower.model, tower.tokens.prompt_ids(PROMPT), tower.tokens.eos)
    tight.sizes.clear()
    np.testing.assert_allclose(tower.encode_query(QUERIES), expected, atol=2e-5)
    assert _shared(tower)
    assert tight.sizes[0] == len(QUERIES) == sum(size for size in tight.sizes if size <= 2)


def test_a_batch_holds_the_keys_of_one_layer(tmp_path: Path) -> None:
    """Nothing of a batch is left in what it goes on from, so all can be at it at once."""
    tower = CausalEncoder(str(write_model(tmp_path / "model")), query_prompt=PROMPT)
    read = read_prompt(tower.model, tower.tokens.prompt_ids(PROMPT))
    begun = ContinuedCache(read, 7)
    before = [(layer.keys.clone(), layer.values.clone()) for layer in begun.layers]
    assert begun.get_seq_length() == 7
    with torch.inference_mode():
        tower.model.backbone(
            input_ids=torch.tensor([[5, 6], [7, 8], [9, 9]]), past_key_values=begun, use_cache=True
        )
    for layer, (keys, values) in zip(begun.layers, before, strict=True):
        assert torch.equal(layer.keys, keys)
        assert torch.equal(layer.values, values)
        assert len(layer.keys) == 1
