"""Writing an impact index as Anserini does, but each impact once, not as so many words.

Anserini's own indexer repeats a token as often as its impact says. Here the text of a document
is ``12|44 300|7``, token ids with their impacts, which Lucene stores as term frequencies: exact
integers. A document without a term stays in the index, so that its number is its row.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from steelyard.errors import EngineError
from steelyard.plugin.lucene.jvm import Jvm

ID, CONTENTS, ROW = "id", "contents", "row"
"""Fields; the first two are what Anserini calls them."""

_TEXT_FIELD = (
    "(Ljava/lang/String;Ljava/lang/CharSequence;Lorg/apache/lucene/index/IndexableFieldType;)V"
)
_ID_TERM = "(Lorg/apache/lucene/util/BytesRef;)V"


class ImpactWriter:
    """Documents into a new Lucene index of one segment, in order; closed by ``with``.

    Args:
        jvm: Java.
        folder: where to; made.
    """

    def __init__(self, jvm: Jvm, folder: Path) -> None:
        self._jvm, self._folder, self._count = jvm, folder, 0
        jvm.run(f"start {folder}", self._open)

    def _open(self) -> None:
        classes = self._jvm.classes
        empty = classes["HashMap"]
        analyzer = classes["CustomAnalyzer"].builder()
        analyzer.withTokenizer("whitespace", empty())
        analyzer.addTokenFilter("delimitedTermFrequency", empty())
        config = classes["IndexWriterConfig"](analyzer.build())
        config.setSimilarity(classes["ImpactSimilarity"]())
        # Only neighbours are merged, so that the documents keep their order.
        config.setMergePolicy(classes["LogDocMergePolicy"]())
        config.setMergeScheduler(classes["SerialMergeScheduler"]())
        config.setUseCompoundFile(False)
        directory = classes["FSDirectory"].open(classes["Paths"].get(str(self._folder)))
        self._writer = classes["IndexWriter"](directory, config)
        # One document whose fields are filled again and again.
        kind = classes["FieldType"]()
        kind.setIndexOptions(classes["IndexOptions"].DOCS_AND_FREQS)
        kind.freeze()
        text = classes["String"]("")
        self._id = classes["StringField"](ID, "", classes["FieldStore"].YES)
        self._sorted_id = classes["BinaryDocValuesField"](ID, classes["BytesRef"](b""))
        self._contents = classes["Field"](CONTENTS, text, kind, signature=_TEXT_FIELD)
        self._row = classes["IntPoint"](ROW, 0)
        self._document = classes["Document"]()
        for field in (self._id, self._sorted_id, self._contents, self._row):
            self._document.add(field)

    def add(
        self,
        ids: Sequence[str],
        starts: NDArray[np.int64],
        terms: NDArray[np.int32],
        impacts: NDArray[np.int32],
    ) -> None:
        """More documents.

        Args:
            ids: n document ids.
            starts: int64 ``[n + 1]``; the terms of document i are ``starts[i]:starts[i + 1]``.
            terms: token ids.
            impacts: integers above 0.
        """
        pairs = [f"{t}|{i}" for t, i in zip(terms.tolist(), impacts.tolist(), strict=True)]
        bounds = starts.tolist()
        texts = [" ".join(pairs[a:b]) for a, b in pairwise(bounds)]
        self._jvm.run(f"write to {self._folder}", lambda: self._add(ids, texts))

    def _add(self, ids: Sequence[str], texts: Sequence[str]) -> None:
        string, bytes_ref = self._jvm.classes["String"], self._jvm.classes["BytesRef"]
        for identifier, text in zip(ids, texts, strict=True):
            encoded = identifier.encode()
            self._id.setStringValue(string(encoded, "UTF-8"))
            self._sorted_id.setBytesValue(bytes_ref(encoded))
            self._contents.setStringValue(text)
            self._row.setIntValue(self._count)
            self._writer.addDocument(self._document)
            self._count += 1

    def __enter__(self) -> ImpactWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self._jvm.run(f"finish {self._folder}", self._finish)
        else:
            self._jvm.run(f"give up {self._folder}", lambda: self._writer.rollback())

    def _finish(self) -> None:
        self._writer.forceMerge(1)
        self._writer.commit()
        stored = self._writer.getDocStats().numDocs
        self._writer.close()
        if stored != self._count:
            raise EngineError(f"Lucene counts {stored} documents, {self._count} were sent")
