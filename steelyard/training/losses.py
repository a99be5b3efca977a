"""The loss of LightRetriever (section 1) and its terms.

b queries, n passages a query: the positive first, then n - 1 hard negatives, so query i's
positive is passage i x n. All passages of a batch, in every process, are negatives of the other
queries. All contrastive terms go from query to passage and have coefficient 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from steelyard.errors import InputError
from steelyard.training.gather import gather
from steelyard.training.mrl import check_dims, cut


@dataclass(frozen=True, slots=True)
class LossSettings:
    """Temperatures and coefficients; the defaults are the published training script's.

    Attributes:
        dense_temperature: under cosines.
        sparse_temperature: under dot products of the sparse arm.
        flops: coefficient of the regulariser, before its schedule.
        kl_dense: coefficient of KL(light dense scores || full dense scores); 0 leaves it out.
        kl_sparse: the same for light sparse scores.
        kl_vectors: coefficient of the KL between the components of both query vectors.
        teacher: coefficient of the KL to given scores of each query's own passages.
        teacher_temperature: under both sides of that.
        mrl_dims: lengths to train, rising; empty trains the whole vectors only.
    """

    dense_temperature: float = 0.02
    sparse_temperature: float = 1.0
    flops: float = 1e-3
    kl_dense: float = 0.0
    kl_sparse: float = 0.0
    kl_vectors: float = 0.0
    teacher: float = 0.0
    teacher_temperature: float = 1.0
    mrl_dims: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_dims(self.mrl_dims)
        for name in ("dense_temperature", "sparse_temperature", "teacher_temperature"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} {getattr(self, name)}", "a temperature is above 0")


@dataclass(frozen=True, slots=True)
class Representations:
    """What the towers made of one batch.

    Attributes:
        light: ``[b, d]`` unit query vectors of the look-up.
        counts: ``[b, V]`` how often each query has each token.
        document_dense: ``[b x n, d]`` unit vectors.
        document_sparse: ``[b x n, V]`` weights, none negative.
        full: ``[b, d]`` unit query vectors of the full model; None leaves out what needs them.
    """

    light: torch.Tensor
    counts: torch.Tensor
    document_dense: torch.Tensor
    document_sparse: torch.Tensor
    full: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss and what it consists of.

    Attributes:
        total: what to go back from.
        terms: its summands by name, coefficients included; with MRL ``name@dims``.
    """

    total: torch.Tensor
    terms: dict[str, torch.Tensor] = field(default_factory=dict)


def light_retriever_loss(
    made: Representations,
    settings: LossSettings,
    *,
    regulariser_strength: float,
    only_hard: torch.Tensor | None = None,
    teacher_scores: torch.Tensor | None = None,
) -> Loss:
    """All terms of one batch; contrastive and KL terms over the batches of all processes.

    Args:
        made: this process's vectors.
        settings: see there.
        regulariser_strength: s(t) of ``schedules``.
        only_hard: ``[b]`` bool; a marked query has its own passages as negatives only, because
            others' may well answer it.
        teacher_scores: ``[b, n]`` scores of each query's own passages, as of a cross-encoder.

    Raises:
        InputError: passages that do not divide among the queries, or a term without its inputs.
    """
    passages = passages_each(made)
    _check(made, settings, teacher_scores)
    # Autocast would take the scores in half precision, which the temperatures magnify.
    with torch.autocast(made.light.device.type, enabled=False):
        everywhere = _gathered(made)
        hard = None if only_hard is None else gather(only_hard)
        given = None if teacher_scores is None else gather(_wide(teacher_scores))
        terms = _Terms(settings, passages, hard, given).of(everywhere)
        if settings.flops:
            strength = settings.flops * regulariser_strength
            terms["flops"] = strength * flops(_wide(made.document_sparse))
        return Loss(torch.stack(list(terms.values())).sum(), terms)


@dataclass(frozen=True, slots=True)
class _Terms:
    """The terms on scores, of vectors of all processes."""

    settings: LossSettings
    passages: int
    only_hard: torch.Tensor | None
    given: torch.Tensor | None

    def of(self, made: Representations) -> dict[str, torch.Tensor]:
        settings, terms = self.settings, {}
        tau = settings.dense_temperature
        dims: tuple[int | None, ...] = settings.mrl_dims or (None,)
        documents = {length: cut(made.document_dense, length).T for length in dims}
        target = None
        if made.full is not None:
            for length in dims:
                scores = cut(made.full, length) @ documents[length]
                terms.update(self._contrast("dense", length, scores, tau))
            target = scores / tau  # of the longest vectors
        for length in dims:
            light = cut(made.light, length)
            scores = light @ documents[length]
            terms.update(self._contrast("light_dense", length, scores, tau))
            if settings.kl_vectors and made.full is not None:
                apart = divergence(light, cut(made.full, length))
                terms[_named("kl_vectors", length)] = settings.kl_vectors * apart
            if settings.kl_dense and target is not None:
                apart = divergence(scores / tau, target)
                terms[_named("kl_dense", length)] = settings.kl_dense * apart
        scores, tau = made.counts @ made.document_sparse.T, settings.sparse_temperature
        terms.update(self._contrast("light_sparse", None, scores, tau))
        if settings.kl_sparse and target is not None:
            terms["kl_sparse"] = settings.kl_sparse * divergence(scores / tau, target)
        return terms

    def _contrast(
        self, name: str, dims: int | None, scores: torch.Tensor, temperature: float
    ) -> dict[str, torch.Tensor]:
        """InfoNCE and, where the batch has a teacher's scores, the KL to them."""
        made = {
            _named(name, dims): contrastive(scores / temperature, self.passages, self.only_hard)
        }
        if self.settings.teacher and self.given is not None:
            warmth = self.settings.teacher_temperature
            own = own_passages(scores, self.passages)
            apart = divergence(own / warmth, self.given / warmth)
            made[_named(f"teacher_{name}", dims)] = self.settings.teacher * apart
        return made


def contrastive(
    scores: torch.Tensor, passages: int, only_hard: torch.Tensor | None = None
) -> torch.Tensor:
    """InfoNCE from query to passage: the mean of -log softmax of the positives.

    Args:
        scores: ``[b, b x n]``, over the temperature already.
        passages: n.
        only_hard: ``[b]`` bool, queries without in-batch negatives.
    """
    positives = torch.arange(len(scores), device=scores.device) * passages
    if only_hard is not None:
        foreign = ~own_mask(scores, passages) & only_hard[:, None]
        scores = scores.masked_fill(foreign, torch.finfo(scores.dtype).min)
    return cross_entropy(scores, positives)


def divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """KL(softmax(teacher) || softmax(student)), mean over rows; the teacher does not learn.

    Args:
        student, teacher: ``[b, m]``, over the temperature already.
    """
    return kl_div(
        log_softmax(student, dim=1), softmax(teacher.detach(), dim=1), reduction="batchmean"
    )


def flops(weights: torch.Tensor) -> torch.Tensor:
    """Sum over terms of (mean absolute weight over documents)^2: the expected work of a query.

    Args:
        weights: ``[n, V]``.
    """
    return weights.abs().mean(dim=0).square().sum()


def own_mask(scores: torch.Tensor, passages: int) -> torch.Tensor:
    """Which passages are a query's own, bool ``[b, b x n]``."""
    owner = torch.arange(scores.shape[1], device=scores.device) // passages
    return owner == torch.arange(len(scores), device=scores.device)[:, None]


def own_passages(scores: torch.Tensor, passages: int) -> torch.Tensor:
    """Scores of each query's own passages, ``[b, n]``."""
    return scores[own_mask(scores, passages)].view(len(scores), passages)


def passages_each(made: Representations) -> int:
    """Passages of each query, the positive and its hard negatives.

    Raises:
        InputError: passages that do not divide among the queries.
    """
    queries, documents = len(made.light), len(made.document_dense)
    if not queries or not documents or documents % queries:
        raise InputError(
            f"{documents} passages for {queries} queries",
            "give every query one positive and the same number of hard negatives",
        )
    return documents // queries


def _check(
    made: Representations, settings: LossSettings, teacher_scores: torch.Tensor | None
) -> None:
    for name in ("kl_dense", "kl_sparse", "kl_vectors"):
        if made.full is None and getattr(settings, name):
            raise InputError(
                f"{name} is {getattr(settings, name)}, but the full model read no query",
                "encode the queries in full, too, or set it to 0",
            )
    if settings.teacher and teacher_scores is None:
        raise InputError(
            f"the teacher's coefficient is {settings.teacher}, but the batch has no scores",
            "use data with scores, or set it to 0",
        )


def _gathered(made: Representations) -> Representations:
    """Of all processes, in float32 at least."""
    return replace(
        made,
        light=gather(_wide(made.light)),
        counts=gather(_wide(made.counts)),
        document_dense=gather(_wide(made.document_dense)),
        document_sparse=gather(_wide(made.document_sparse)),
        full=None if made.full is None else gather(_wide(made.full)),
    )


def _wide(values: torch.Tensor) -> torch.Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _named(term: str, dims: int | None) -> str:
    return term if dims is None else f"{term}@{dims}"
