"""Speed of a causal tower, as ratios from one run: table building, document encoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.causal.sparse_head import sparse_head
from steelyard.encoders.causal.table import NAIVE_BATCH, TableRows, naive_rows
from steelyard.encoders.causal.tower import CausalEncoder
from steelyard.encoders.documents.batching import BATCH_TOKENS, length_batches
from steelyard.errors import InputError
from steelyard.eval.bench.peak_memory import peak_memory
from steelyard.eval.bench.take_turns import take_turns


@dataclass(frozen=True, slots=True)
class TableBenchmark:
    """Rows a second by the shared prompt and by reading the prompt for every token anew.

    ``largest_difference`` is the largest absolute difference of the two builders' rows.
    """

    rows: int
    prompt_tokens: int
    precision: str
    rows_per_second: float
    naive_rows_per_second: float
    speed_up: float
    largest_difference: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class DocumentsBenchmark:
    """Tokens a second of the tower and of its bare forward passes, LM head included.

    Attributes:
        head_peak_bytes: what the sparse head took at most beside the hidden states; None where
            this system cannot tell.
        head_bound_bytes: (slice + 2 x batch) x vocabulary x 4.
    """

    documents: int
    tokens: int
    precision: str
    tokens_per_second: float
    bare_tokens_per_second: float
    share: float
    head_peak_bytes: int | None
    head_bound_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def bench_table(
    tower: CausalEncoder, prompt: str, rows: int, *, rounds: int = 3
) -> TableBenchmark:
    """Time both builders on the same tokens, taking turns.

    Args:
        tower: whose table.
        prompt: of the instruction.
        rows: how many tokens, spread over the vocabulary.
        rounds: turns; the median counts.
    """
    size = tower.tokens.rows
    ids = np.unique(np.linspace(0, size - 1, min(rows, size)).astype(np.int64))
    made: dict[str, NDArray[np.float32]] = {}

    def shared() -> None:
        made["shared"] = TableRows(tower.model, tower.tokens, prompt).rows(ids)

    def naive() -> None:
        parts = [ids[i : i + NAIVE_BATCH] for i in range(0, len(ids), NAIVE_BATCH)]
        made["naive"] = np.concatenate(
            [naive_rows(tower.model, tower.tokens, prompt, part) for part in parts]
        )

    fast, slow = take_turns([shared, naive], rounds)
    return TableBenchmark(
        rows=len(ids),
        prompt_tokens=len(tower.tokens.prompt_ids(prompt)),
        precision=tower.precision,
        rows_per_second=len(ids) / fast,
        naive_rows_per_second=len(ids) / slow,
        speed_up=slow / fast,
        largest_difference=float(np.abs(made["shared"] - made["naive"]).max()),
    )


def bench_documents(
    tower: CausalEncoder,
    texts: Sequence[str],
    *,
    batch_tokens: int = BATCH_TOKENS,
    rounds: int = 3,
) -> DocumentsBenchmark:
    """Time the tower against nothing but its matrix products, over the same batches.

    Args:
        tower: with a sparse arm.
        texts: documents.
        batch_tokens: padded tokens in a batch.
        rounds: turns; the median counts.
    """
    import torch

    if not tower.sparse:
        raise InputError("the tower has no sparse arm", "give a pack with --sparse lm-head")
    lengths = tower.token_lengths(texts)
    batches = [[texts[i] for i in batch] for batch in length_batches(lengths, batch_tokens)]
    limit = tower.spec.max_length
    prepared = []
    for batch in batches:
        rows = tower.tokens.ids(batch, limit)
        longest = max(map(len, rows))
        padded = [row + [tower.tokens.eos] * (longest - len(row)) for row in rows]
        prepared.append((torch.tensor(padded), [len(row) for row in rows]))

    def bare() -> None:
        with torch.inference_mode():
            for ids, counts in prepared:
                hidden = tower.model.backbone(
                    input_ids=ids.to(tower.model.device), use_cache=False
                ).last_hidden_state
                inner = torch.cat([hidden[i, 1 : n - 1] for i, n in enumerate(counts)])
                for piece in torch.split(inner, tower.slice_tokens):
                    tower.model.head(piece)
            if tower.model.device.type == "cuda":
                torch.cuda.synchronize()

    def whole() -> None:
        for batch in batches:
            tower.encode_document(batch)

    tower_seconds, bare_seconds = take_turns([whole, bare], rounds)
    peak, bound = _head_memory(tower, max(prepared, key=lambda pair: sum(pair[1]))[1])
    tokens = int(lengths.sum())
    return DocumentsBenchmark(
        documents=len(texts),
        tokens=tokens,
        precision=tower.precision,
        tokens_per_second=tokens / tower_seconds,
        bare_tokens_per_second=tokens / bare_seconds,
        share=bare_seconds / tower_seconds,
        head_peak_bytes=peak,
        head_bound_bytes=bound,
    )


def _head_memory(tower: CausalEncoder, lengths: list[int]) -> tuple[int | None, int]:
    """Peak and bound of the sparse head on one batch of hidden states."""
    import torch

    counts = [length - 2 for length in lengths]
    hidden = torch.randn(sum(counts), tower.model.dims, device=tower.model.device)
    hidden = hidden.to(getattr(torch, tower.precision))
    arguments = (tower.model, tower.vocabulary_size, tower.max_terms, tower.slice_tokens)
    with torch.inference_mode():
        sparse_head(hidden, counts, *arguments)  # libraries take their own buffers once
        with peak_memory(str(tower.model.device)) as measured:
            sparse_head(hidden, counts, *arguments)
    bound = (tower.slice_tokens + 2 * len(counts)) * tower.vocabulary_size * 4
    return measured.extra_bytes, bound
