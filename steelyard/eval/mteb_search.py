"""Steelyard's own hybrid search as a model of the ``mteb`` package (its search protocol)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steelyard.encoders.documents.batching import BATCH_TOKENS
from steelyard.encoders.documents.from_pack import open_document_encoder
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import InputError
from steelyard.eval.collection import Query
from steelyard.eval.mteb_model import LOOKUP, model_meta
from steelyard.eval.runs import make_run
from steelyard.indexer.encoding.group import encode_group
from steelyard.plugin.engine import Candidates, Generation
from steelyard.plugin.exact import ExactIndex
from steelyard.plugin.fusion import Fusion
from steelyard.plugin.quantise import quantise
from steelyard.plugin.ranking import rank
from steelyard.types import Document, EncodedDocuments

if TYPE_CHECKING:
    from mteb.models import ModelMeta

_THREADS = 2  # one for each arm


class SteelyardSearch:
    """Look-ups and the pack's sparse arm, fused; an ``mteb.models.SearchProtocol``.

    The index is exact and in memory; sparse weights are quantised as engines hold them.

    Args:
        pack: folder of the query pack, or the pack opened. Its BM25 weights stay as they are:
            distill it on the task's own corpus for that corpus's idf.
        fusion: how the arms are joined; None is the pack's own way.
        candidates: of each arm; None is the pack's own number.
        feedback: documents that refine a query; 0 is off.
        instruction: which of the pack's tables; None is its default.
        tower: as of ``open_document_encoder``.
    """

    def __init__(
        self,
        pack: str | Path | QueryEncoder,
        *,
        fusion: Fusion | None = None,
        candidates: int | None = None,
        feedback: int = 0,
        instruction: str | None = None,
        **tower: Any,
    ) -> None:
        self._queries = pack if isinstance(pack, QueryEncoder) else QueryEncoder.load(pack)
        metadata = self._queries.metadata
        self._fusion = fusion or Fusion.of_pack(metadata.fusion)
        self._candidates = candidates or metadata.fusion.candidates
        self._feedback, self._instruction, self._settings = feedback, instruction, tower
        self._index: ExactIndex | None = None
        parts = [LOOKUP, metadata.sparse.kind, *(["feedback"] if feedback else [])]
        settings = {
            "fusion": f"{self._fusion.method} {' '.join(map(str, self._fusion.weights))}",
            "candidates": self._candidates,
            "feedback": feedback,
            "instruction": instruction,
            **tower,
        }
        self.mteb_model_meta: ModelMeta = model_meta(
            self._queries, "+".join(parts), "hybrid", settings
        )

    def index(self, corpus: Any, **context: Any) -> None:
        """Encode a corpus for both arms.

        Args:
            corpus: rows with ``id``, ``text`` and perhaps ``title``.
            context: what mteb says about the task; not used.
        """
        del context
        documents = [
            Document(str(row["id"]), row["text"] or "", row.get("title") or "") for row in corpus
        ]
        queries = self._queries
        group = encode_group(
            documents,
            open_document_encoder(queries, **self._settings),
            dims=queries.dims,
            vocabulary_size=queries.vocabulary_size,
            batch_tokens=BATCH_TOKENS,
        )
        if group.not_finite:
            first = documents[group.not_finite[0]].id
            raise InputError(
                f"{len(group.not_finite)} documents have a vector that is not finite, first "
                f"{first!r}",
                "mend the texts, or give precision='float32'",
            )
        scale = queries.metadata.sparse.scale
        impacts, _ = quantise(group.encoded.sparse, scale)
        content = EncodedDocuments(group.encoded.documents, group.encoded.dense, impacts)
        self._index = ExactIndex(_generation(queries), content)

    def search(
        self,
        queries: Any,
        *,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **context: Any,
    ) -> dict[str, dict[str, float]]:
        """Query id -> document id -> fused score, at most ``top_k`` a query.

        Args:
            queries: rows with ``id`` and ``text``.
            top_k: how many documents.
            top_ranked: of re-ranking tasks, which this is not for.
            context: what mteb says about the task; not used.

        Raises:
            InputError: a re-ranking task, a conversation as query, or no corpus yet.
        """
        del context
        if top_ranked is not None:
            raise InputError(
                "a re-ranking task names the candidates, hybrid search finds its own",
                "use SteelyardModel for it",
            )
        if self._index is None:
            raise InputError("no corpus to search", "call index first")
        ids, texts = list(queries["id"]), list(queries["text"])
        if not all(isinstance(text, str) for text in texts):
            raise InputError("a query is a conversation", "choose tasks whose queries are texts")
        encoded = self._queries.encode_query(texts, instruction=self._instruction)
        with ThreadPoolExecutor(_THREADS) as threads:
            rankings = rank(
                self._index,
                encoded,
                self._fusion,
                self._candidates,
                threads,
                feedback=self._feedback,
            )
        best = [
            Candidates(ranking.fused.ids[:top_k], ranking.fused.scores[:top_k])
            for ranking in rankings
        ]
        asked = [Query(identifier, text) for identifier, text in zip(ids, texts, strict=True)]
        return make_run("mteb", asked, best).scores  # falls strictly: mteb keeps our order


def _generation(queries: QueryEncoder) -> Generation:
    metadata = queries.metadata
    return Generation(
        name="mteb",
        dense_space=metadata.spaces.dense,
        sparse_space=metadata.spaces.sparse,
        pack_id=metadata.pack_id,
        content="in_memory",
        dims=queries.dims,
        vocabulary_size=queries.vocabulary_size,
        scale=metadata.sparse.scale,
    )
