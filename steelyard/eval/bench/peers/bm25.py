"""BM25 by bm25s: its tokenising alone, and the whole search on the corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steelyard.eval.bench.peers.peer import DOCUMENTS, TOKEN_IDS, Opened, Setting, bytes_of

_STOP_WORDS = "en"
_DEPTH = 10


@dataclass(frozen=True)
class Bm25sTokenise:
    """``bm25s.tokenize``: words, stop words left out, no stemmer."""

    name: str = "bm25s-tokenise"
    title: str = "bm25s, words alone"
    gives: str = TOKEN_IDS
    install: str = "pip install bm25s"
    most: int | None = None

    def prepare(self, setting: Setting, folder: Path) -> int:
        """It reads nothing."""
        del setting, folder
        return 0

    def open(self, setting: Setting, folder: Path) -> Opened:
        """Import it."""
        del setting, folder
        tokenise = _tokeniser()
        return Opened(lambda text: tokenise([text]), tokenise)


@dataclass(frozen=True)
class Bm25s:
    """Tokenising, and the ten best documents: no encoding alone, a whole search."""

    name: str = "bm25s"
    title: str = "bm25s, whole search"
    gives: str = DOCUMENTS
    install: str = "pip install bm25s"
    most: int | None = None

    def prepare(self, setting: Setting, folder: Path) -> int:
        """Index the corpus."""
        import bm25s

        from steelyard.indexer.reading.documents import good_documents
        from steelyard.indexer.reading.readers import open_corpus

        documents = good_documents(open_corpus(setting.corpus))
        texts = [document.content for document in documents]
        retriever = bm25s.BM25()
        retriever.index(_tokeniser()(texts), show_progress=False)
        retriever.save(str(folder / "index"))
        return bytes_of(folder / "index")

    def open(self, setting: Setting, folder: Path) -> Opened:
        """From its own files."""
        del setting
        import bm25s

        tokenise = _tokeniser()
        retriever = bm25s.BM25.load(str(folder / "index"))
        depth = min(_DEPTH, int(retriever.scores["num_docs"]))

        def many(texts: Sequence[str]) -> object:
            return retriever.retrieve(tokenise(texts), k=depth, show_progress=False)

        return Opened(lambda text: many([text]), many)


def _tokeniser() -> Any:
    import bm25s

    def tokenise(texts: Sequence[str]) -> Any:
        return bm25s.tokenize(list(texts), stopwords=_STOP_WORDS, show_progress=False)

    return tokenise
