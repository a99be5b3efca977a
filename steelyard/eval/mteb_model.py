"""A query pack as a model of the ``mteb`` package (version 2, its encoder protocol).

Queries are encoded by look-up and documents by the pack's document encoder, as in production. A
text of neither kind (similarity, classification, clustering) is a document: the two sides of such
a task are alike, and a look-up takes the place of queries alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steelyard.encoders.documents.batching import encode_in_batches
from steelyard.encoders.documents.from_pack import open_dense_encoder
from steelyard.encoders.documents.protocol import FullModel
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import InputError, needs_extra
from steelyard.types import DenseVectors

if TYPE_CHECKING:
    from mteb.models import ModelMeta
    from mteb.types import PromptType

LOOKUP, FULL = "lookup", "full"
QUERIES = (LOOKUP, FULL)


class SteelyardModel:
    """Give it to ``mteb.evaluate``: it is an ``mteb.models.EncoderProtocol``.

    Args:
        pack: folder of the query pack, or the pack opened.
        queries: ``lookup``, or ``full``: the document encoder encodes the queries too, which is
            what look-ups are compared with.
        instruction: which of the pack's tables; None is its default.
        tower: where and how the document encoder is opened: ``model``, ``adapter``,
            ``precision``, ``device``, as of ``open_dense_encoder``. It is opened with the first
            text that needs it.

    Raises:
        InputError: no such way of encoding queries, or no such instruction.
        MissingExtraError: mteb is not installed.
        PackError: the pack is missing or damaged.
    """

    def __init__(
        self,
        pack: str | Path | QueryEncoder,
        queries: str = LOOKUP,
        *,
        instruction: str | None = None,
        **tower: Any,
    ) -> None:
        if queries not in QUERIES:
            raise InputError(
                f"queries cannot be encoded by {queries!r}", f"choose one of {', '.join(QUERIES)}"
            )
        self._queries = pack if isinstance(pack, QueryEncoder) else QueryEncoder.load(pack)
        self._by, self._instruction, self._settings = queries, instruction, tower
        self._tower: FullModel | None = None
        self._queries.encode_dense([], instruction=instruction)  # a wrong name fails here
        self.mteb_model_meta: ModelMeta = model_meta(
            self._queries,
            queries,
            "dense",
            {"queries": queries, "instruction": instruction, **tower},
        )

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any = None,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: PromptType | None = None,
        **settings: Any,
    ) -> DenseVectors:
        """Vectors ``[n, d]`` of all texts.

        Args:
            inputs: batches; the texts of each are its ``text``. A document's is its title, a
                space and its text, as Steelyard itself joins them.
            task_metadata, hf_split, hf_subset: not used: a pack has one prompt a side.
            prompt_type: ``query``, ``document``, or None: see above.
            settings: mteb's ``batch_size`` and ``show_progress_bar`` are not used, batches go by
                length; another ``precision`` than float32 is refused.
        """
        del task_metadata, hf_split, hf_subset
        _refuse_precision(settings.get("precision"))
        texts = [text for batch in inputs for text in _texts(batch)]
        is_query = prompt_type is not None and prompt_type.value == "query"
        if is_query and self._by == LOOKUP:
            return self._queries.encode_dense(texts, instruction=self._instruction)
        tower = self._open_tower()

        def document(some: Any) -> DenseVectors:
            dense = tower.encode_document(some).dense
            assert dense is not None, "a full model has a dense arm"  # noqa: S101
            return dense

        encode: Callable[[Any], DenseVectors] = tower.encode_query if is_query else document
        return encode_in_batches(texts, tower.token_lengths(texts), encode, tower.dims)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Inner products of all pairs, a torch tensor ``[n, m]``; all vectors are normalised."""
        with needs_extra("mteb"):
            from mteb.similarity_functions import dot_score

        return dot_score(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Inner products of one pair after the other, a torch tensor ``[n]``."""
        with needs_extra("mteb"):
            from mteb.similarity_functions import pairwise_dot_score

        return pairwise_dot_score(embeddings1, embeddings2)

    def _open_tower(self) -> FullModel:
        if self._tower is None:
            self._tower = open_dense_encoder(self._queries.metadata, **self._settings)
        return self._tower


def model_meta(queries: QueryEncoder, system: str, kind: str, experiment: dict[str, Any]) -> Any:
    """What mteb files results under: the pack's name and id, and the settings.

    Args:
        queries: the pack; its id is the revision.
        system: ``lookup``, ``full``, ``lookup+bm25``.
        kind: mteb's type of model: ``dense`` or ``hybrid``.
        experiment: settings that change results.
    """
    with needs_extra("mteb"):
        from mteb.models import ModelMeta
        from mteb.models.model_meta import ScoringFunction

    metadata = queries.metadata
    name = f"{metadata.name}-{system}".replace("/", "-")
    return ModelMeta.create_empty(
        {
            "name": f"steelyard/{name}",
            "revision": metadata.pack_id,
            "embed_dim": queries.dims,
            "max_tokens": float(metadata.document_encoder.max_length),
            "adapted_from": metadata.document_encoder.model,
            "similarity_fn_name": ScoringFunction.DOT_PRODUCT,
            "model_type": [kind],
            "experiment_kwargs": {k: v for k, v in experiment.items() if v is not None},
        }
    )


def _texts(batch: Mapping[str, Any]) -> list[str]:
    texts = batch.get("text")
    if texts is None:
        raise InputError(
            f"mteb gave {', '.join(sorted(batch)) or 'nothing'}, a pack encodes text alone",
            "choose tasks of the modality text",
        )
    return list(texts)


def _refuse_precision(precision: str | None) -> None:
    if precision not in (None, "float32"):
        raise InputError(
            f"mteb asks for {precision} vectors, a pack's are float32",
            "leave precision out of encode_kwargs",
        )
