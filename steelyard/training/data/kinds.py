"""The pairs that one document gives.

- ``title``: the title asks for the body.
- ``sentence``: a sentence asks for its document without that sentence: the inverse cloze task
  (Lee, Chang and Toutanova, 2019). It can't be solved by finding the same words.
- ``span``: a run of words of the body asks for the whole document, with these words: matching
  words is what a sparse arm is to learn (after the crops of Contriever, Izacard et al., 2022).
- ``definition``: "X is a ..." makes X, or "what is X", ask for the document.

Every draw depends on the seed and the document's id only: neither the order of the corpus nor
other documents change what a document gives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from hashlib import blake2b

import numpy as np

from steelyard.encoders.distillation.pseudo_queries import sentence_spans
from steelyard.training.data.triples import Passage, TrainingExample
from steelyard.types import Document

TITLE, SENTENCE, SPAN, DEFINITION = KINDS = ("title", "sentence", "span", "definition")

MIN_TITLE_WORDS = 2
MIN_QUERY_WORDS, MAX_QUERY_WORDS = 5, 32
MIN_SPAN_WORDS, MAX_SPAN_WORDS = 4, 16
MIN_BODY_WORDS = 10
"""A positive of fewer words teaches nothing."""

_TERM = r"(?P<term>\w[\w'’/-]*(?: (?:(?!is\b|are\b|was\b|were\b)\w)[\w'’/-]*){0,5})"
_ABBREVIATION = r"(?: ?\([^()]{1,40}\))?"
_DEFINES = (
    r"(?:(?:is|are) (?:an?|the|one of|any|defined as|known as)"
    r"|refers? to|denotes?|is short for|stands for) "
)
_DEFINITION = re.compile(rf"(?:(?:An?|The) )?{_TERM}{_ABBREVIATION},? {_DEFINES}")
_NO_TERM_WORDS = (
    "a all also although an and another any as at because both but by during each either for from"
    " few he her here his how however i if in it its many most my no nor of on one or other our"
    " results several she since so some such that the their them then there these they this those"
    " thus to two three under us we what when where whereas whether which while who why with yet"
    " you your aim aims goal goals objective objectives purpose conclusion finding findings study"
    " background methods context importance rationale introduction design conclusions primary"
    " secondary main outcome outcomes endpoint endpoints end"
)
_NO_TERM = frozenset(_NO_TERM_WORDS.split())


def pairs_of(document: Document, kinds: tuple[str, ...], seed: int) -> Iterator[TrainingExample]:
    """The pairs of one document, at most one of each kind, in the order of ``kinds``."""
    for kind in kinds:
        digest = blake2b(f"{kind}\0{document.id}".encode(), digest_size=8).digest()
        rng = np.random.default_rng([seed, int.from_bytes(digest, "little")])
        if (pair := _MAKERS[kind](document, rng)) is not None:
            query, positive = pair
            yield TrainingExample(query, positive, (), kind)


_Pair = tuple[str, Passage]


def _title(document: Document, rng: np.random.Generator) -> _Pair | None:
    del rng
    title = " ".join(document.title.split())
    if len(title.split()) < MIN_TITLE_WORDS or not _is_body(document.text):
        return None
    return title, Passage(document.text, "", document.id)


def _sentence(document: Document, rng: np.random.Generator) -> _Pair | None:
    text = document.text
    spans = [
        (start, end)
        for start, end in sentence_spans(text)
        if MIN_QUERY_WORDS <= len(text[start:end].split()) <= MAX_QUERY_WORDS
    ]
    if not spans:
        return None
    start, end = spans[int(rng.integers(len(spans)))]
    sentence = text[start:end]
    # A sentence that is said twice goes twice.
    rest = " ".join(part.strip() for part in text.split(sentence) if part.strip())
    if not _is_body(rest):
        return None
    return " ".join(sentence.split()), Passage(rest, document.title, document.id)


def _span(document: Document, rng: np.random.Generator) -> _Pair | None:
    words = document.text.split()
    if len(words) < MIN_BODY_WORDS + MIN_SPAN_WORDS:
        return None
    most = min(MAX_SPAN_WORDS, len(words) - MIN_BODY_WORDS)
    size = int(rng.integers(MIN_SPAN_WORDS, most + 1))
    start = int(rng.integers(len(words) - size + 1))
    return " ".join(words[start : start + size]), Passage.of(document)


def _definition(document: Document, rng: np.random.Generator) -> _Pair | None:
    if not _is_body(document.text):
        return None
    terms = []
    for start, end in sentence_spans(document.text):
        found = _DEFINITION.match(document.text[start:end])
        if found and not _NO_TERM.intersection(found["term"].lower().split()):
            terms.append(found["term"])
    if not terms:
        return None
    term = terms[int(rng.integers(len(terms)))]
    return (term if rng.random() < 0.5 else f"what is {term}"), Passage.of(document)


def _is_body(text: str) -> bool:
    return len(text.split()) >= MIN_BODY_WORDS


_MAKERS: dict[str, Callable[[Document, np.random.Generator], _Pair | None]] = {
    TITLE: _title,
    SENTENCE: _sentence,
    SPAN: _span,
    DEFINITION: _definition,
}
