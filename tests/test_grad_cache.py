"""Chunked contrastive batches: the gradients of the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from steelyard.encoders.causal.tower import CausalEncoder
from steelyard.training.grad_cache import Encode, Vectors, cached_backward, chunks_of
from steelyard.training.losses import Loss, LossSettings, Representations, light_retriever_loss
from steelyard.training.towers import Rows
from tests.conftest import scifact_lines
from tests.test_training_blocks import towers_of
from tests.tiny_causal import write_model

PROMPT = "Instruct: find passages\nQuery: "
QUERIES, PASSAGES = 6, 2
SETTINGS = LossSettings(kl_dense=1, kl_sparse=1, mrl_dims=(8, 32))


class Batch:
    """Six queries, each with its document and another, through a tiny model in float64."""

    def __init__(self, folder: Path, dropout: float = 0.0) -> None:
        model = write_model(folder / "model", attention_dropout=dropout)
        encoder = CausalEncoder(str(model), max_length=24, device="cpu")
        encoder.model.backbone.double().train(dropout > 0)
        encoder.model.head.double().requires_grad_(False)
        self.towers = towers_of(encoder, PROMPT, slice_tokens=16)
        tokens, lines = encoder.tokens, scifact_lines(QUERIES * PASSAGES)
        self.documents: Rows = tokens.ids([line["text"] for line in lines], 24)
        titles = [line["title"] for line in lines[::PASSAGES]]
        self.full: Rows = tokens.ids(titles, 40, PROMPT)
        self.light: Rows = [row[1:-1] for row in tokens.ids(titles, 12)]

    def encodes(self, size: int) -> dict[str, list[Encode]]:
        """The parts in chunks of this many texts."""
        return {
            "light": self._parts(lambda rows: (self.towers.light(rows),), self.light, size),
            "full": self._parts(lambda rows: (self.towers.full(rows),), self.full, size),
            "documents": self._parts(self.towers.documents, self.documents, size),
            "nothing": [],
        }

    @staticmethod
    def _parts(
        encode: Callable[[Rows], tuple[torch.Tensor, ...]], rows: Rows, size: int
    ) -> list[Encode]:
        return [partial(encode, rows[part]) for part in chunks_of(len(rows), size)]

    def loss(self, vectors: Vectors) -> Loss:
        assert "nothing" not in vectors
        made = Representations(
            light=vectors["light"][0],
            counts=self.towers.counts(self.light).double(),
            document_dense=vectors["documents"][0],
            document_sparse=vectors["documents"][1],
            full=vectors["full"][0],
        )
        return light_retriever_loss(made, SETTINGS, regulariser_strength=1)

    def gradients(self) -> dict[str, torch.Tensor]:
        named = dict(self.towers.backbone.named_parameters())
        found = {name: p.grad.clone() for name, p in named.items() if p.grad is not None}
        self.towers.backbone.zero_grad()
        return found


def _plainly(batch: Batch, size: int) -> tuple[Loss, dict[str, torch.Tensor]]:
    """Everything with gradients at once; chunks only so that dropout is drawn alike."""
    vectors = {
        name: tuple(torch.cat(column) for column in zip(*[e() for e in parts], strict=True))
        for name, parts in batch.encodes(size).items()
        if parts
    }
    loss = batch.loss(vectors)
    loss.total.backward()  # type: ignore[no-untyped-call]
    return loss, batch.gradients()


def _same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 0.1
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [1, 4, 100])
def test_gradients_are_those_of_the_whole_batch(size: int, tmp_path: Path) -> None:
    batch = Batch(tmp_path)
    expected_loss, expected = _plainly(batch, 100)
    made = cached_backward(batch.encodes(size), batch.loss, lambda loss: loss.total)
    torch.testing.assert_close(made.total.detach(), expected_loss.total.detach())
    assert made.terms.keys() == expected_loss.terms.keys()
    _same(batch.gradients(), expected)


def test_dropout_is_the_same_both_times(tmp_path: Path) -> None:
    batch = Batch(tmp_path, dropout=0.3)
    torch.manual_seed(5)
    _, expected = _plainly(batch, 4)
    follows = torch.rand(3)
    torch.manual_seed(5)
    cached_backward(batch.encodes(4), batch.loss, lambda loss: loss.total)
    found = batch.gradients()
    _same(found, expected)
    torch.testing.assert_close(torch.rand(3), follows)
    torch.manual_seed(6)
    _, other = _plainly(batch, 4)
    name = "layers.0.self_attn.q_proj.weight"
    assert (other[name] - found[name]).abs().max() > 1e-3


def test_gradients_add_up_over_batches(tmp_path: Path) -> None:
    batch = Batch(tmp_path)
    _, once = _plainly(batch, 100)
    for _ in range(2):
        cached_backward(batch.encodes(3), batch.loss, lambda loss: loss.total)
    _same({name: g / 2 for name, g in batch.gradients().items()}, once)


def test_a_part_that_the_loss_does_not_use(tmp_path: Path) -> None:
    """And one without anything to learn: neither is gone back from."""
    batch = Batch(tmp_path)
    parts: dict[str, list[Encode]] = {
        "full": batch.encodes(3)["full"],
        "fixed": [lambda: (torch.ones(2, 3),)],
    }
    seen = []

    def loss(vectors: Vectors) -> torch.Tensor:
        seen.append({name: tuple(v.shape for v in found) for name, found in vectors.items()})
        return vectors["fixed"][0].sum()

    made = cached_backward(parts, loss, lambda total: total)
    assert float(made.detach()) == 6
    assert seen == [{"full": ((QUERIES, 32),), "fixed": ((2, 3),)}]
    assert batch.gradients() == {}


def test_activations_are_those_of_one_chunk(tmp_path: Path) -> None:
    """Counted by what autograd keeps: at any time no more than a chunk's."""
    batch = Batch(tmp_path)

    def most_kept(run: Callable[[], object]) -> int:
        kept = most = 0

        class Held:
            def __init__(self, tensor: torch.Tensor) -> None:
                nonlocal kept, most
                self.tensor, self.size = tensor, tensor.numel()
                kept += self.size
                most = max(most, kept)

            def __del__(self) -> None:
                nonlocal kept
                kept -= self.size

        with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
            run()
        return most

    whole = most_kept(lambda: _plainly(batch, 100))
    chunked = most_kept(
        lambda: cached_backward(batch.encodes(1), batch.loss, lambda loss: loss.total)
    )
    assert chunked < whole / 3
