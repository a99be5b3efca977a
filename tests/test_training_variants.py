"""Towers as LightRetriever's ablations change them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from steelyard.encoders.causal.tower import CausalEncoder
from steelyard.errors import InputError
from steelyard.training.lora import add_adapter, trained_parameters
from steelyard.training.settings import AdapterSettings
from steelyard.training.towers import Towers
from steelyard.training.variants.document_bag import DocumentBagTowers
from steelyard.training.variants.embedding_layer import EmbeddingLayerTowers, add_projection
from steelyard.training.variants.one_layer import OneLayerTowers, first_layers
from tests.test_training_blocks import towers_of
from tests.tiny_causal import FAMILIES, write_model

PROMPT = "Instruct: find passages\nQuery: "
QUERIES = [[300, 301, 302], [303, 303, 305], [310], []]


def opened(folder: Path, family: str = "llama", **changes: Any) -> CausalEncoder:
    return CausalEncoder(str(write_model(folder, family, **changes)), device="cpu")


def as_variant(kind: type[Towers], towers: Towers) -> Towers:
    return kind(**{one.name: getattr(towers, one.name) for one in fields(Towers)})


@pytest.fixture
def encoder(tmp_path: Path) -> CausalEncoder:
    return opened(tmp_path / "llama")


@pytest.mark.parametrize("family", FAMILIES)
def test_one_layer_is_a_model_of_one_layer(family: str, tmp_path: Path) -> None:
    whole = opened(tmp_path / "two", family)
    single = opened(tmp_path / "one", family, num_hidden_layers=1)
    weights = whole.model.backbone.state_dict()
    first = {n: weights[n] for n in single.model.backbone.state_dict()}
    single.model.backbone.load_state_dict(first)
    towers = towers_of(whole, PROMPT)
    variant = as_variant(OneLayerTowers, towers)
    found, expected = variant.light(QUERIES), towers_of(single, PROMPT).light(QUERIES)
    torch.testing.assert_close(found, expected)
    assert (found - towers.light(QUERIES)).abs().max() > 0.05
    # All else is the whole model's, before and after.
    rows = whole.tokens.ids(["heavy documents", "light queries"], 12)
    torch.testing.assert_close(variant.full(rows), towers.full(rows))
    assert len(towers.backbone.layers) == 2


def test_one_layer_learns_by_the_first_adapter_only(encoder: CausalEncoder) -> None:
    add_adapter(encoder.model.backbone, AdapterSettings(rank=2))
    variant = as_variant(OneLayerTowers, towers_of(encoder, PROMPT))
    variant.light(QUERIES)[:, 0].sum().backward()  # type: ignore[no-untyped-call]
    learning = trained_parameters(encoder.model.backbone)
    moved = {name for name, p in learning.items() if p.grad is not None and p.grad.any()}
    assert moved
    assert all(name.startswith("layers.0.") for name in moved)
    assert any(name.startswith("layers.1.") for name in learning)


def test_the_first_of_no_layers(encoder: CausalEncoder) -> None:
    with pytest.raises(InputError, match="first 3 layers of a model with 2"):
        first_layers(encoder.model.backbone, 3)
    with pytest.raises(InputError, match="model with 0"):
        first_layers(torch.nn.Linear(2, 2), 1)


@pytest.mark.parametrize("share", [False, True])
def test_documents_as_bags(share: bool, encoder: CausalEncoder) -> None:
    """The mean of what the model makes of ``bos token eos``, in no order; pads take no part."""
    towers = towers_of(encoder, PROMPT, share_blocks=share)
    bos, eos, pad = encoder.tokens.bos, encoder.tokens.eos, encoder.tokens.pad
    assert pad is not None
    variant = as_variant(DocumentBagTowers, towers)
    rows = [[bos, 300, 301, 300, eos], [bos, 301, pad, 300, 300, eos], [bos, eos]]
    dense, sparse = variant.documents(rows)
    alone = [
        towers.backbone(input_ids=torch.tensor([[bos, token, eos]])).last_hidden_state[0, -1]
        for token in (300, 301, 300)
    ]
    expected = torch.nn.functional.normalize(torch.stack(alone).mean(0), dim=0)
    torch.testing.assert_close(dense[0], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(dense[1], expected, rtol=0, atol=1e-5)
    assert not dense[2].any()
    ordinary, weights = towers.documents(rows)
    torch.testing.assert_close(sparse, weights)
    assert (ordinary[0] - dense[0]).abs().max() > 0.05
    dense[:, 0].sum().backward()  # type: ignore[no-untyped-call]
    assert towers.backbone.layers[0].mlp.up_proj.weight.grad.any()


def test_queries_out_of_the_embedding_layer(encoder: CausalEncoder) -> None:
    backbone, pad = encoder.model.backbone, encoder.tokens.pad
    assert pad is not None
    adapted = AdapterSettings(rank=2)
    add_adapter(backbone, adapted)
    variant = as_variant(EmbeddingLayerTowers, towers_of(encoder, PROMPT))
    with pytest.raises(InputError, match="no map from its embedding layer"):
        variant.light(QUERIES)
    before = torch.get_rng_state()
    add_projection(backbone)
    assert torch.equal(torch.get_rng_state(), before)
    rows = backbone.get_input_embeddings().weight
    found = variant.light([*QUERIES, [pad, 310]])
    expected = torch.nn.functional.normalize(rows[[303, 303, 305]].mean(0), dim=0)
    torch.testing.assert_close(found[1], expected)
    torch.testing.assert_close(found[4], found[2])
    assert not found[3].any()
    # The map learns, with the adapter; the rows do not.
    learning = trained_parameters(backbone)
    assert "light_projection.weight" in learning
    found[:, 0].sum().backward()  # type: ignore[no-untyped-call]
    moved = [name for name, p in learning.items() if p.grad is not None]
    assert moved == ["light_projection.weight"]
    assert learning["light_projection.weight"].grad is not None
    assert rows.grad is None
    with torch.no_grad():
        learning["light_projection.weight"].mul_(-1)
    torch.testing.assert_close(variant.light(QUERIES), -found[:4].detach())
