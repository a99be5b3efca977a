"""Searching an impact index with float query weights.

Anserini's searcher takes integer weights only. Here a query is Lucene's own ``12^0.5 300^2.25``:
each term's score is impact x weight in float32, and their sum is made in float64 and rounded to
float32. The parser builds all terms in one call of Java, as many small calls are much slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from steelyard.errors import EngineError
from steelyard.plugin.filter_mask import Mask
from steelyard.plugin.lucene.impact_writer import CONTENTS, ID, ROW
from steelyard.plugin.lucene.jvm import Jvm

_READER = "(Lorg/apache/lucene/index/IndexReader;)V"


def query_text(ids: NDArray[np.int32], weights: NDArray[np.float32]) -> str:
    """A sparse query in Lucene's syntax; the weights keep all their digits, without exponents."""
    return " ".join(
        f"{term}^{np.format_float_positional(weight, trim='0')}"
        for term, weight in zip(ids.tolist(), weights, strict=True)
    )


class ImpactReader:
    """An impact index whose document numbers are rows; safe to use from many threads.

    Its files are let go of when it is no longer referred to, which a search that runs does.

    Args:
        jvm: Java.
        folder: of the Lucene index.
        ids: the documents by row.

    Raises:
        EngineError: it cannot be read, or holds other documents.
    """

    def __init__(self, jvm: Jvm, folder: Path, ids: Sequence[str]) -> None:
        self._jvm, self._folder, self._ids = jvm, folder, ids
        self._action = f"read {folder}"
        jvm.run(self._action, self._open)

    def _open(self) -> None:
        classes = self._jvm.classes
        directory = classes["FSDirectory"].open(classes["Paths"].get(str(self._folder)))
        reader = classes["DirectoryReader"].open(directory)
        finalize(self, self._jvm.before_next, partial(_close, reader))
        rows = range(len(self._ids))
        if reader.maxDoc() != len(rows) or reader.numDocs() != len(rows):
            raise EngineError(
                f"{self._folder} holds {reader.numDocs()} documents, {len(rows)} belong there",
                "index the corpus again",
            )
        for row in {rows[0], rows[len(rows) // 2], rows[-1]} if rows else ():
            found = reader.storedFields().document(row).get(ID)
            if found != self._ids[row]:
                raise EngineError(
                    f"document {row} of {self._folder} is {found!r:.80}, "
                    f"{self._ids[row]!r:.80} belongs there",
                    "index the corpus again",
                )
        self._searcher = classes["IndexSearcher"](reader, signature=_READER)
        self._searcher.setSimilarity(classes["ImpactSimilarity"]())
        self._analyzer = classes["WhitespaceAnalyzer"]()

    def search(
        self,
        queries: Sequence[tuple[NDArray[np.int32], NDArray[np.float32]]],
        k: int,
        *,
        allowed: Mask | None = None,
        timeout: float | None = None,
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Rows and scores of each query's k best.

        Args:
            queries: token ids and weights; at most 1,024 terms each.
            k: at least 1.
            allowed: the rows that may be found, bool ``[count]``.
            timeout: seconds for all.
        """
        none = (np.zeros(0, np.int64), np.zeros(0))
        count = len(self._ids)
        if not count or (allowed is not None and not allowed.any()):
            return [none] * len(queries)
        texts = [query_text(*query) for query in queries]
        narrowing = None
        if allowed is not None and not allowed.all():
            narrowing = self._jvm.run(self._action, lambda: self._narrowing(allowed), timeout)

        def one(text: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
            return self._search(text, min(k, count), narrowing) if text else none

        return list(self._jvm.map(f"search {self._folder}", one, texts, timeout))

    def _narrowing(self, allowed: Mask) -> tuple[Any, Any]:
        """The allowed rows as a clause, or the others as its opposite: whichever are fewer."""
        occur = self._jvm.classes["Occur"]
        few = 2 * np.count_nonzero(allowed) <= len(allowed)
        rows = np.flatnonzero(allowed if few else ~allowed).tolist()
        clause = self._jvm.classes["IntPoint"].newSetQuery(ROW, *rows)
        return clause, occur.FILTER if few else occur.MUST_NOT

    def _search(
        self, text: str, k: int, narrowing: tuple[Any, Any] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        classes = self._jvm.classes
        query = classes["QueryParser"](CONTENTS, self._analyzer).parse(text)
        if narrowing is not None:
            both = classes["BooleanQueryBuilder"]()
            both.add(query, classes["Occur"].MUST)
            both.add(*narrowing)
            query = both.build()
        found = [(hit.doc, hit.score) for hit in self._searcher.search(query, k).scoreDocs]
        rows = np.array([row for row, _ in found], dtype=np.int64)
        return rows, np.array([score for _, score in found], dtype=np.float64)


def _close(reader: Any) -> None:
    # The method is looked up here, in the thread of Java.
    reader.close()
