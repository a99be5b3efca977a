"""What a training run is told: one dataclass a topic, the defaults of the published recipe.

LightRetriever (section 1): batch 128, 12,000 steps, 7 hard negatives, LoRA of rank 16 on all
linear layers.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any

from steelyard.encoders.causal.model import PRECISIONS
from steelyard.encoders.pack.spaces import canonical_json
from steelyard.errors import InputError
from steelyard.training.losses import LossSettings
from steelyard.training.schedules import LEAST_LEARNING_RATE, REGULARISER_RAMP


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """The LoRA adapter, on all linear layers of the backbone.

    Attributes:
        rank: r.
        alpha: the adapter's output is scaled by alpha / r.
        dropout: on its input.
        first_layer: layers below this one stay as they are, and need no activations.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.1
    first_layer: int = 0

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha < 1 or not 0 <= self.dropout < 1 or self.first_layer < 0:
            raise InputError(
                f"LoRA rank {self.rank}, alpha {self.alpha}, dropout {self.dropout}, first layer "
                f"{self.first_layer}",
                "rank and alpha are 1 or more, dropout is below 1, layers count from 0",
            )


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """What one step sees.

    Attributes:
        queries: of all processes together.
        negatives: hard negatives of each query.
        document_tokens: documents are cut to this, bos and eos included.
        query_tokens: queries are cut to this, specials and prompt aside.
        chunk: texts that activations are held of at a time (GradCache); None: the whole batch.
        share_blocks: read each different query token of a chunk once.
        checkpointing: hold the activations of layers' borders only, and compute the rest again.
    """

    queries: int = 128
    negatives: int = 7
    document_tokens: int = 512
    query_tokens: int = 512
    chunk: int | None = None
    share_blocks: bool = True
    checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.queries < 2:
            raise InputError(
                f"a batch of {self.queries} queries",
                "the others' passages are negatives: 2 or more",
            )
        if self.negatives < 0 or self.document_tokens < 3 or self.query_tokens < 3:
            raise InputError(
                f"{self.negatives} negatives, {self.document_tokens} tokens a document, "
                f"{self.query_tokens} a query",
                "negatives 0 or more; bos and eos take 2 of the tokens",
            )
        if self.chunk is not None and self.chunk < 1:
            raise InputError(f"chunks of {self.chunk} texts", "1 or more")


@dataclass(frozen=True, slots=True)
class OptimiserSettings:
    """AdamW and its learning rate.

    Attributes:
        steps: of the whole run: the learning rate falls towards the last.
        learning_rate: its peak.
        warmup: steps until the peak.
        floor: share of the peak at the end.
        weight_decay: of AdamW.
        gradient_norm: gradients are scaled down to this norm; None leaves them.
    """

    steps: int = 12_000
    learning_rate: float = 2e-5
    warmup: int = 100
    floor: float = LEAST_LEARNING_RATE
    weight_decay: float = 0.01
    gradient_norm: float | None = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup <= self.steps or self.steps < 1:
            raise InputError(
                f"a warm-up of {self.warmup} steps in a run of {self.steps}",
                "make the run longer, or warm up less",
            )
        if not self.learning_rate > 0 or self.weight_decay < 0:
            raise InputError(
                f"learning rate {self.learning_rate}, weight decay {self.weight_decay}",
                "the rate is above 0, the decay 0 or more",
            )


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """All that decides what a run learns, its data aside.

    Attributes:
        prompt: before every query: ``PROMPT_TEMPLATE`` with its task.
        full_queries: read queries with the full model, too: its own contrastive term, and the
            teacher of the KL terms.
        ramp: steps until the regulariser has its full strength.
        precision: of the frozen weights; the adapter learns in float32.
        lowercase: lower-case all texts.
        seed: of the adapter's first weights, the order of the examples and dropout.
    """

    prompt: str
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    batch: BatchSettings = field(default_factory=BatchSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    full_queries: bool = True
    ramp: int = REGULARISER_RAMP
    precision: str = "auto"
    lowercase: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(
                f"unknown precision {self.precision!r}", f"choose one of {', '.join(PRECISIONS)}"
            )

    def to_json(self) -> dict[str, Any]:
        """All of them, for reports and checkpoints."""
        return asdict(self)

    def fingerprint(self, *others: str) -> str:
        """SHA-256 of what a run may not change while it lasts.

        Args:
            others: of the model and of the data.
        """
        value = self.to_json()
        for name in ("chunk", "checkpointing"):  # how a batch goes through memory, not what it is
            del value["batch"][name]
        parts = [canonical_json(value).decode(), *others]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
