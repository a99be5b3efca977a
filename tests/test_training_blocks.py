"""The towers with gradients: equal to the encoders that serve, and to the official training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steelyard.encoders.causal.sparse_head import max_logits, term_weights
from steelyard.encoders.causal.table import TableRows
from steelyard.encoders.causal.tower import CausalEncoder
from steelyard.errors import InputError
from steelyard.training.losses import LossSettings, Representations, light_retriever_loss
from steelyard.training.max_pooling import pooled_logits, sparse_weights
from steelyard.training.query_blocks import block_batch, light_queries
from steelyard.training.towers import Towers
from tests.tiny_causal import write_model

REFERENCE = Path(__file__).parent / "data" / "lightretriever_qwen2"
LOSSES: dict[str, Any] = json.loads((REFERENCE / "losses.json").read_text(encoding="utf-8"))
TOKENS: dict[str, Any] = json.loads((REFERENCE / "tokens.json").read_text(encoding="utf-8"))
VECTORS = dict(np.load(REFERENCE / "vectors.npz"))


def towers_of(encoder: CausalEncoder, prompt: str, **changes: Any) -> Towers:
    made = Towers(
        backbone=encoder.model.backbone,
        head=encoder.model.head,
        prompt_ids=tuple(encoder.tokens.prompt_ids(prompt)),
        eos=encoder.tokens.eos,
        pad=encoder.tokens.pad,
        logit_scale=encoder.model.logit_scale,
        logit_cap=encoder.model.logit_cap,
    )
    return replace(made, **changes)


@pytest.fixture
def encoder() -> CausalEncoder:
    return CausalEncoder(str(REFERENCE / "model"), max_length=48, max_terms=None, device="cpu")


@pytest.fixture
def towers(encoder: CausalEncoder) -> Towers:
    return towers_of(encoder, TOKENS["prompt"])


def _close(found: torch.Tensor, expected: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=0, atol=tolerance)


def test_the_official_example_of_the_layout(towers: Towers) -> None:
    example = json.loads((REFERENCE / "train_block_example.json").read_text(encoding="utf-8"))
    prompt = len(towers.prompt_ids)
    # A longer query beside it, so that the example is padded.
    batch = block_batch([example["input_ids"][prompt:-1], [5, 6, 7]], towers.prompt_ids, 1190)
    used = len(example["input_ids"])
    assert batch.input_ids[0, :used].tolist() == example["input_ids"]
    assert batch.position_ids[0, :used].tolist() == example["position_ids"]
    assert batch.ends[0].nonzero()[:, 0].tolist() == [used - 1]
    seen = [row.nonzero()[:, 0].tolist() for row in batch.mask[0, 0] == 0]
    assert seen[used - 6 : used] == example["attends"]
    assert seen[used:] == [[place] for place in range(used, used + 4)]
    assert batch.mask.dtype == torch.float32
    assert float(batch.mask.min()) == torch.finfo(torch.float32).min


def test_the_official_batch_of_queries(towers: Towers) -> None:
    batch = LOSSES["_batch"]["token_ids"]
    prompt = len(towers.prompt_ids)
    expected = np.array(batch["query_light"])
    rows = _light_rows(prompt)
    made = block_batch(rows, towers.prompt_ids, towers.eos)
    np.testing.assert_array_equal(made.input_ids.numpy(), expected)
    np.testing.assert_array_equal(
        made.position_ids.numpy(), np.array(batch["query_light_position_ids"])
    )


def test_a_block_never_sees_another(towers: Towers) -> None:
    """Three blocks, entry by entry."""
    mask = block_batch([[7, 8, 9]], [1, 2], 0).mask[0, 0] == 0
    expected = [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 1, 0, 0],
        [1, 1, 0, 0, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 0, 1, 1],
    ]
    assert mask.int().tolist() == expected


@pytest.mark.parametrize("share", [False, True])
def test_light_queries_are_the_look_ups(towers: Towers, share: bool) -> None:
    """All 12 as served; the first 11 also as officially trained (the last spells a special)."""
    found = replace(towers, share_blocks=share).light(TOKENS["query_ids_dense"])
    _close(found, VECTORS["query_dense"])
    _close(found[:11], VECTORS["query_dense_train_batch"][:11])


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
def test_light_queries_are_means_of_table_rows(family: str, share: bool, tmp_path: Path) -> None:
    encoder = CausalEncoder(str(write_model(tmp_path / family, family)), device="cpu")
    towers = towers_of(encoder, "Instruct: find passages\nQuery: ", share_blocks=share)
    table = TableRows(encoder.model, encoder.tokens, "Instruct: find passages\nQuery: ")
    ids, pad = list(range(300, 400)), encoder.tokens.pad
    assert pad is not None
    rows = table.rows(np.array(ids))
    found = towers.light([ids[:90], ids[40:47], [303, 303, 305], [pad, 308], []])
    expected = np.stack([rows[:90].mean(0), rows[40:47].mean(0), rows[[3, 3, 5]].mean(0), rows[8]])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    _close(found[:4], expected)
    assert not found[4].any()


def test_sharing_blocks_leaves_the_gradients(towers: Towers) -> None:
    towers.backbone.double()
    weights = torch.randn(12, 64, dtype=torch.float64)
    found = []
    for share in (False, True):
        towers.backbone.zero_grad()
        made = replace(towers, share_blocks=share).light(TOKENS["query_ids_dense"])
        (made * weights).sum().backward()  # type: ignore[no-untyped-call]
        found.append(_gradients(towers))
    assert max(float(g.abs().max()) for g in found[0].values()) > 1e-3
    for name, gradient in found[0].items():
        # Not closer in float64: the norms and rotary positions stay in float32.
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=1e-6)


def test_no_query_in_the_batch_has_a_token(towers: Towers) -> None:
    made = towers.light([[], []])
    assert made.shape == (2, 64)
    made.sum().backward()  # type: ignore[no-untyped-call]
    assert not made.any()
    assert all(gradient.isfinite().all() for gradient in _gradients(towers).values())
    with pytest.raises(InputError, match="without queries"):
        light_queries(towers.backbone, [], towers.prompt_ids, towers.eos)


def test_documents_and_full_queries_are_the_official_ones(towers: Towers) -> None:
    dense, sparse = towers.documents(TOKENS["document_ids"])
    _close(dense, VECTORS["document_dense"])
    _close(sparse, VECTORS["document_sparse"], 1e-4)
    _close(towers.full(TOKENS["query_ids_symmetric"]), VECTORS["query_dense_symmetric"])
    with pytest.raises(InputError, match="a text of 1 tokens"):
        towers.full([[3, 4], [3]])


@pytest.mark.parametrize("slice_tokens", [1, 7, 256])
def test_documents_are_those_that_are_served(
    slice_tokens: int, tmp_path: Path, encoder: CausalEncoder
) -> None:
    """A family that caps its logits, and documents that end inside a slice."""
    folder = write_model(tmp_path / "gemma2", "gemma2", final_logit_softcapping=0.5)
    served = CausalEncoder(str(folder), max_length=24, max_terms=None, device="cpu")
    texts = [
        "Heavy cells divide twice a day",
        "",
        "A protein",
        "One more, longer than the limit " * 4,
    ]
    expected = served.encode_document(texts)
    assert expected.dense is not None
    assert expected.sparse is not None
    towers = towers_of(served, "", slice_tokens=slice_tokens)
    dense, sparse = towers.documents(served.tokens.ids(texts, 24))
    _close(dense, expected.dense)
    _close(sparse[:, : served.vocabulary_size], expected.sparse.to_csr().toarray())


@pytest.mark.parametrize("slice_tokens", [1, 4, 100])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_through_the_max_pooling(slice_tokens: int, bias: bool) -> None:
    """To hidden states, head and bias: those of autograd with every logit held."""
    torch.manual_seed(1)
    head = torch.nn.Linear(6, 11, bias=bias).double()
    counts = [3, 0, 9, 1]
    hidden = torch.randn(13, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(4, 11, dtype=torch.float64)
    inputs = [hidden, *head.parameters()]
    made = sparse_weights(hidden, counts, head, scale=0.7, cap=2.0, slice_tokens=slice_tokens)
    found = torch.autograd.grad((made * weights).sum(), inputs)
    logits = torch.tanh(head(hidden) * 0.7 / 2) * 2
    largest = [logits[:3].amax(0), None, logits[3:12].amax(0), logits[12]]
    rows = [torch.zeros(11).double() if x is None else x.relu().log1p() for x in largest]
    expected = torch.autograd.grad((torch.stack(rows) * weights).sum(), inputs)
    torch.testing.assert_close(made, torch.stack(rows))
    for ours, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, reference)


def test_max_pooling_in_half_precision_and_under_autocast() -> None:
    torch.manual_seed(2)
    head = torch.nn.Linear(16, 40, bias=False)
    hidden = torch.randn(20, 16, requires_grad=True)
    half = torch.nn.Linear(16, 40, bias=False)
    half.load_state_dict(head.state_dict())
    half.bfloat16()
    with torch.no_grad():
        expected = max_logits(hidden.bfloat16(), [5, 15], half, 40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pooled_logits(hidden, [5, 15], head)
    assert found.dtype == torch.float32
    _close(found, expected.numpy(), 0)
    _close(pooled_logits(hidden.bfloat16(), [5, 15], half), expected.numpy(), 0)
    found.sum().backward()  # type: ignore[no-untyped-call]
    gradient = hidden.grad
    assert gradient is not None
    hidden.grad = None
    pooled_logits(hidden, [5, 15], head).sum().backward()  # type: ignore[no-untyped-call]
    assert hidden.grad is not None
    # Ties in half precision may go to another token, so only the sums agree.
    torch.testing.assert_close(gradient.sum(0), hidden.grad.sum(0), rtol=0.02, atol=0.05)
    torch.testing.assert_close(
        term_weights(max_logits(hidden.detach(), [5, 15], head.requires_grad_(False), 40)),
        sparse_weights(hidden.detach(), [5, 15], head),
    )


def test_a_nan_is_not_pooled_away() -> None:
    head = torch.nn.Linear(4, 5)
    hidden = torch.randn(6, 4)
    hidden[1] = torch.nan
    assert pooled_logits(hidden, [3, 3], head, 2).isnan().all(dim=1).tolist() == [True, False]


def test_a_head_that_carries_an_adapter() -> None:
    head = torch.nn.Sequential(torch.nn.Linear(4, 5))
    with pytest.raises(InputError, match="a Sequential, not one linear layer"):
        pooled_logits(torch.zeros(2, 4), [2], head)


def test_a_whole_official_step(towers: Towers) -> None:
    """Token ids to parameter gradients: the loss, and each parameter's gradient norm."""
    made = _encoded(towers)
    arrays = np.load(REFERENCE / "losses.npz")
    assert made.full is not None
    _close(made.full, arrays["q_dense_reps"], 2e-5)
    _close(made.light, arrays["q_emb_reps"], 2e-5)
    _close(made.counts, arrays["q_token_id_reps"], 0)
    _close(made.document_dense, arrays["p_dense_reps"], 2e-5)
    _close(made.document_sparse, arrays["p_sparse_reps"], 1e-4)
    case = LOSSES["example_script"]
    loss = light_retriever_loss(
        made, LossSettings(), regulariser_strength=case["reg_scaling_factor"]
    )
    loss.total.backward()  # type: ignore[no-untyped-call]
    assert float(loss.total.detach()) == pytest.approx(case["loss"], rel=0, abs=5e-4)
    expected = LOSSES["_parameter_gradient_norms_example_script"]
    found = {f"lm_q.model.{n}": float(g.norm()) for n, g in _gradients(towers).items()}
    assert found == pytest.approx(expected, rel=1e-3)


def test_adapter_gradients_under_checkpointing(towers: Towers) -> None:
    """LoRA layers learn and nothing else does; recomputed activations change no gradient."""
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    adapted = peft.get_peft_model(towers.backbone, lora)
    towers.head.requires_grad_(False)
    towers = replace(towers, backbone=adapted)
    found = []
    for checkpointed in (False, True):
        adapted.train()
        if checkpointed:
            towers.backbone.base_model.model.gradient_checkpointing_enable()
        adapted.zero_grad()
        loss = light_retriever_loss(_encoded(towers), LossSettings(), regulariser_strength=1)
        loss.total.backward()  # type: ignore[no-untyped-call]
        found.append(_gradients(towers))
    assert len(found[0]) == 3 * 7 * 2
    assert all(".lora_" in name and gradient.any() for name, gradient in found[0].items())
    assert adapted.base_model.model.is_gradient_checkpointing
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-5)


def test_a_step_in_bfloat16(towers: Towers) -> None:
    """Weights in float32, arithmetic in bfloat16: unit vectors near the exact ones."""
    exact = _encoded(towers)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = _encoded(towers)
        loss = light_retriever_loss(made, LossSettings(), regulariser_strength=1)
    loss.total.backward()  # type: ignore[no-untyped-call]
    for name in ("light", "full", "document_dense"):
        ours, expected = getattr(made, name), getattr(exact, name)
        assert ours.dtype == torch.float32
        assert float((ours * expected).sum(dim=1).min().detach()) > 0.99
    assert all(gradient.isfinite().all() for gradient in _gradients(towers).values())


def _light_rows(prompt: int) -> list[list[int]]:
    """Tokens of the official batch's light queries, out of their blocks."""
    batch = LOSSES["_batch"]["token_ids"]
    rows = []
    for ids, positions in zip(
        batch["query_light"], batch["query_light_position_ids"], strict=True
    ):
        rows.append([i for i, p in zip(ids, positions, strict=True) if p == prompt])
    return [row for row in rows if row]


def _encoded(towers: Towers) -> Representations:
    batch = LOSSES["_batch"]["token_ids"]
    eos = towers.eos
    passages = [[*ids[: ids.index(eos)], eos] for ids in batch["passage"]]
    full = [[*ids[: ids.index(eos)], eos] for ids in batch["query_symmetric"]]
    light = _light_rows(len(towers.prompt_ids))
    counted = np.load(REFERENCE / "losses.npz")["q_token_id_reps"]
    spelled = [np.repeat(np.arange(len(row)), row.astype(int)).tolist() for row in counted]
    document_dense, document_sparse = towers.documents(passages)
    return Representations(
        towers.light(light), towers.counts(spelled), document_dense, document_sparse,
        towers.full(full),
    )  # fmt: skip


def _gradients(towers: Towers) -> dict[str, torch.Tensor]:
    named = towers.backbone.named_parameters()
    return {name: p.grad.clone() for name, p in named if p.grad is not None}
