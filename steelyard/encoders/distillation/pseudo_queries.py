"""Pseudo-queries from a corpus's own text: no labels, no real queries.

Three kinds, because real queries are of all three: whole sentences, bags of telling words, and
sentences with words left out. Each remembers the document it came from.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.distillation.settings import DistillationSettings
from steelyard.errors import InputError
from steelyard.types import Document

KINDS = ("sentences", "keywords", "shortened sentences")
MIN_SENTENCE_WORDS = 3
MAX_SENTENCE_WORDS = 24
MIN_WINDOW_WORDS = 6
MIN_KEYWORDS, MAX_KEYWORDS = 2, 10
DROPPED_SHARE = 0.2

_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+")
_WORD = re.compile(r"\w+(?:[-.'’]\w+)*")


@dataclass(frozen=True, slots=True)
class PseudoQueries:
    """Texts and, for each, the index of its source document (int64 ``[n]``)."""

    texts: list[str]
    sources: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, indices: NDArray[np.int64]) -> PseudoQueries:
        """The named ones, in the order named."""
        return PseudoQueries([self.texts[i] for i in indices], self.sources[indices])


def draw_pseudo_queries(
    documents: Sequence[Document], settings: DistillationSettings, rng: np.random.Generator
) -> PseudoQueries:
    """Draw up to ``settings.pseudo_queries``, without repeating a text.

    Raises:
        InputError: the corpus has no sentence of three words.
    """
    pool = list(_sentence_pool(documents))
    if not pool:
        raise InputError(
            f"no sentence of {MIN_SENTENCE_WORDS} words in {len(documents)} documents",
            "look-up distillation learns from the corpus's own text: give it a real corpus",
        )
    stop = settings.stop_words
    each = settings.pseudo_queries // len(KINDS)
    drawn: dict[str, int] = {}
    for source, sentence in _choose(pool, each, rng):
        text = _window(sentence, documents[source].content, rng)
        drawn.setdefault(text, source)
    inverse = _inverse_document_frequency(documents, stop)
    weighted: dict[int, list[tuple[str, float]]] = {}
    for _ in range(each):
        source = int(rng.integers(len(documents)))
        if source not in weighted:
            weighted[source] = _weighted_words(documents[source].content, inverse)
        words = _keywords(weighted[source], rng)
        if len(words) >= MIN_KEYWORDS:
            drawn.setdefault(" ".join(words), source)
    for source, sentence in _choose(pool, each, rng):
        words = [word for word in _WORD.findall(sentence) if word.lower() not in stop]
        kept = [word for word in words if rng.random() >= DROPPED_SHARE]
        if len(kept) >= MIN_KEYWORDS:
            drawn.setdefault(" ".join(kept[:MAX_SENTENCE_WORDS]), source)
    return PseudoQueries(list(drawn), np.fromiter(drawn.values(), np.int64, len(drawn)))


def sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """Where each sentence begins and ends, without the white space around it."""
    start = len(text) - len(text.lstrip())
    for gap in _SENTENCE_END.finditer(text):
        if gap.start() > start:
            yield start, gap.start()
        start = gap.end()
    end = len(text.rstrip())
    if end > start:
        yield start, end


def _sentence_pool(documents: Sequence[Document]) -> Iterator[tuple[int, str]]:
    for index, document in enumerate(documents):
        for part in (document.title, document.text):
            for sentence in _SENTENCE_END.split(part):
                if len(sentence.split()) >= MIN_SENTENCE_WORDS:
                    yield index, sentence.strip()


def _choose(
    pool: Sequence[tuple[int, str]], count: int, rng: np.random.Generator
) -> Iterator[tuple[int, str]]:
    chosen = rng.choice(len(pool), size=min(count, len(pool)), replace=False)
    return (pool[i] for i in chosen)


def _window(sentence: str, content: str, rng: np.random.Generator) -> str:
    """The sentence; one that is too long is replaced by a window of its document."""
    if len(sentence.split()) <= MAX_SENTENCE_WORDS:
        return sentence
    words = content.split()
    size = min(int(rng.integers(MIN_WINDOW_WORDS, MAX_SENTENCE_WORDS + 1)), len(words))
    start = int(rng.integers(len(words) - size + 1))
    return " ".join(words[start : start + size])


def _inverse_document_frequency(
    documents: Sequence[Document], stop: frozenset[str]
) -> Callable[[str], float]:
    """Idf of a word; 0 for stop words and for words of every document."""
    frequency: Counter[str] = Counter()
    for document in documents:
        frequency.update(set(_WORD.findall(document.content.lower())))
    total = len(documents)
    idf = {w: math.log((total + 1) / (n + 0.5)) for w, n in frequency.items() if w not in stop}
    return lambda word: idf.get(word, 0.0)


def _weighted_words(content: str, inverse: Callable[[str], float]) -> list[tuple[str, float]]:
    """Each telling word of a text once, as it is first spelt, with its idf."""
    spelling: dict[str, str] = {}
    for word in _WORD.findall(content):
        spelling.setdefault(word.lower(), word)
    return [(spelt, weight) for word, spelt in spelling.items() if (weight := inverse(word)) > 0]


def _keywords(words: Sequence[tuple[str, float]], rng: np.random.Generator) -> list[str]:
    """2 to 10 different words of a document, drawn by idf without replacement.

    Efraimidis and Spirakis: the words with the largest u^(1/idf), u uniform. Half of the draws
    keep the order of the text, half the order of the draw.
    """
    low, high = math.log(MIN_KEYWORDS), math.log(MAX_KEYWORDS + 1)
    count = min(MAX_KEYWORDS, int(math.exp(rng.uniform(low, high))))
    keys = rng.random(len(words))
    ranked = sorted(range(len(words)), key=lambda i: -math.log(keys[i]) / words[i][1])[:count]
    if rng.random() < 0.5:
        ranked.sort()
    return [words[i][0] for i in ranked]
