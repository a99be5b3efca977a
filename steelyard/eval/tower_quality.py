"""How good a tower's vectors of a judged collection are: nDCG@10 and R@100 of every system.

Search is exact and in memory: the fusion, candidates and measures of ``steelyard eval``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from steelyard.encoders.causal.tokens import CausalTokenizer
from steelyard.encoders.documents.bm25 import Bm25Encoder, count_corpus
from steelyard.encoders.pack.metadata import IMPACT_SCALE
from steelyard.encoders.pack.query_tokenizer import query_tokenizer
from steelyard.encoders.query.tokenizer import PackTokenizer, load_tokenizer
from steelyard.eval.sweeps.quality import Graded, Judge
from steelyard.eval.sweeps.results import Quality
from steelyard.eval.sweeps.truncation import first_dims, heaviest_terms
from steelyard.eval.tower_vectors import JudgedCollection, TowerVectors
from steelyard.plugin.engine import Candidates, Generation
from steelyard.plugin.exact import ExactIndex
from steelyard.plugin.fusion import Fusion
from steelyard.plugin.quantise import quantise
from steelyard.types import DenseVectors, EncodedDocuments, SparseVectors

FULL, LIGHT, SPARSE, BM25 = "full", "lookup", "lm-head", "bm25"
"""As ``steelyard eval`` names its systems."""

SYSTEMS = {
    FULL: (FULL,),
    LIGHT: (LIGHT,),
    SPARSE: (SPARSE,),
    f"{FULL}+{SPARSE}": (FULL, SPARSE),
    f"{LIGHT}+{SPARSE}": (LIGHT, SPARSE),
    BM25: (BM25,),
    f"{FULL}+{BM25}": (FULL, BM25),
    f"{LIGHT}+{BM25}": (LIGHT, BM25),
}
"""Name of each system, and its arms."""

CANDIDATES = 1000


@dataclass(frozen=True, slots=True)
class SizedQuality:
    """Light queries against smaller vectors.

    Attributes:
        dims: first components kept.
        max_terms: heaviest terms kept a document.
        lookup, sparse, fused: of each arm, and of both.
    """

    dims: int
    max_terms: int
    lookup: Quality
    sparse: Quality
    fused: Quality


class TowerJudge:
    """Measures towers on one collection.

    BM25 has the tower's own tokens, whole texts and k1 1.2, b 0.75; it is the same for every
    tower with that tokenizer.

    Args:
        collection: what the towers read.
        tokens: their tokenizer.
        candidates: that each arm gives.
    """

    def __init__(
        self,
        collection: JudgedCollection,
        tokens: CausalTokenizer,
        candidates: int = CANDIDATES,
    ) -> None:
        self._collection, self._candidates = collection, candidates
        self._judge = Judge(collection.judged)
        self._bm25 = self._search_bm25(tokens)

    def systems(self, vectors: TowerVectors) -> dict[str, Graded]:
        """How good every system of ``SYSTEMS`` is; two arms are joined as 0.7 and 0.3."""
        index = self._index(vectors.dense, vectors.impacts)
        arms = {
            FULL: index.dense.search(vectors.full, self._candidates),
            LIGHT: index.dense.search(vectors.light, self._candidates),
            SPARSE: index.sparse.search(vectors.counts, self._candidates),
            BM25: self._bm25,
        }
        return {
            name: self._grade(*(arms[part] for part in parts)) for name, parts in SYSTEMS.items()
        }

    def sizes(
        self, vectors: TowerVectors, dims: Sequence[int], max_terms: Sequence[int]
    ) -> list[SizedQuality]:
        """Light queries with every number of dimensions and terms."""
        dense = {
            count: self._index(first_dims(vectors.dense, count), vectors.impacts).dense.search(
                first_dims(vectors.light, count), self._candidates
            )
            for count in dims
        }
        sparse = {
            count: self._index(
                vectors.dense, heaviest_terms(vectors.impacts, count)
            ).sparse.search(vectors.counts, self._candidates)
            for count in max_terms
        }
        alone = {count: self._grade(found).quality for count, found in dense.items()}
        terms = {count: self._grade(found).quality for count, found in sparse.items()}
        return [
            SizedQuality(d, t, alone[d], terms[t], self._grade(dense[d], sparse[t]).quality)
            for d in dims
            for t in max_terms
        ]

    def _grade(self, *arms: list[Candidates]) -> Graded:
        """Of one arm, or of a dense and a sparse one."""
        if len(arms) == 1:
            return self._judge.grade(arms[0])
        return self._judge.fused(arms[0], arms[1], Fusion())

    def _index(self, dense: DenseVectors, impacts: SparseVectors) -> ExactIndex:
        generation = Generation(
            "in_memory", "", "", "", "", dense.shape[1], impacts.vocabulary_size, IMPACT_SCALE
        )
        return ExactIndex(generation, EncodedDocuments(self._collection.documents, dense, impacts))

    def _search_bm25(self, tokens: CausalTokenizer) -> list[Candidates]:
        loaded = load_tokenizer(tokens.text, "the tower's tokenizer", tokens.rows)
        special = query_tokenizer(tokens.text).special_ids
        tokenizer = PackTokenizer(loaded.tokenizer, tokens.rows, ignored_ids=special)
        texts = [document.content for document in self._collection.documents]
        statistics = count_corpus(texts, tokenizer, tokens.rows)
        encoder = Bm25Encoder(tokenizer, tokens.rows, avgdl=statistics.avgdl)
        weights = encoder.encode_document(texts).sparse
        assert weights is not None  # noqa: S101 - BM25 has no other arm
        impacts, _ = quantise(weights, IMPACT_SCALE)
        rows = tokenizer.encode([query.text for query in self._collection.judged.queries])
        idf = statistics.idf()[rows.ids]
        shape = (len(rows.indptr) - 1, tokens.rows)
        queries = SparseVectors.from_csr(csr_matrix((idf, rows.ids, rows.indptr), shape=shape))
        nothing = np.zeros((len(texts), 1), dtype=np.float32)
        return self._index(nothing, impacts).sparse.search(queries, self._candidates)
