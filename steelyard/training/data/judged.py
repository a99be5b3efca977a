"""Examples that someone judged: BEIR folders with a train split, MS MARCO's triples in TSV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from steelyard.errors import InputError
from steelyard.indexer.reading.documents import good_documents
from steelyard.indexer.reading.json_lines import check_characters, read_id, read_object
from steelyard.indexer.reading.readers import open_corpus
from steelyard.indexer.reading.streams import TOO_LONG, RawLine, plain_name, read_lines
from steelyard.training.data.triples import (
    BadLine,
    Passage,
    TrainingExample,
    check_example,
    read_examples,
)

_T = TypeVar("_T")

JUDGED = "judged"
_HEADER = b"query-id"
_QUERIES = ("queries.jsonl", "queries.jsonl.gz")


def open_examples(
    source: Path, documents: Mapping[str, Passage] | None = None, split: str = "train"
) -> Iterator[TrainingExample | BadLine]:
    """Examples by what is given.

    Args:
        source: a BEIR folder; a ``.tsv`` file of triples; else the package's JSON Lines.
        documents: by id, for files that name them so.
        split: of a BEIR folder.

    Raises:
        InputError: nothing there.
    """
    if source.is_dir():
        return read_beir(source, split)
    if plain_name(source.name).endswith(".tsv"):
        return read_tsv_triples(source, documents=documents)
    return read_examples(source, documents)


def read_beir(folder: Path, split: str = "train") -> Iterator[TrainingExample | BadLine]:
    """One example for each judged document with a relevance over 0, in the qrels' order.

    Documents judged 0 or less are their query's negatives. Only judged documents are held.

    Args:
        folder: ``corpus.jsonl``, ``queries.jsonl`` (both perhaps ``.gz``), ``qrels/<split>.tsv``.
        split: which judgements. Train on ``train``: ``test`` is to be reported on.

    Raises:
        InputError: a file is missing or cannot be read to its end.
    """
    queries, qrels = _files(folder, split)
    bad: list[BadLine] = []
    judgements = list(_judgements(qrels, bad))
    texts = _query_texts(queries, {query for _, query, _, _ in judgements}, bad)
    wanted = {document for _, _, document, _ in judgements}
    passages = {
        document.id: Passage.of(document)
        for document in good_documents(open_corpus(folder))
        if document.id in wanted
    }
    yield from bad
    negatives: dict[str, list[Passage]] = {}
    for _, query, document, relevance in judgements:
        if relevance <= 0 and document in passages:
            negatives.setdefault(query, []).append(passages[document])
    for line, query, document, relevance in judgements:
        if query not in texts:
            yield BadLine(line, f"no query {query[:80]!r} in {queries.name}", qrels.name)
        elif document not in passages:
            yield BadLine(line, f"no document {document[:80]!r} in the corpus", qrels.name)
        elif relevance > 0:
            listed = tuple(negatives.get(query, ()))
            example = TrainingExample(texts[query], passages[document], listed, JUDGED)
            yield _checked(example, line, qrels)


def read_query_texts(folder: Path, split: str) -> list[str]:
    """Texts of a split's judged queries, to keep them out of training.

    Raises:
        InputError: as ``read_beir``.
    """
    queries, qrels = _files(folder, split)
    bad: list[BadLine] = []
    wanted = {query for _, query, _, _ in _judgements(qrels, bad)}
    return list(_query_texts(queries, wanted, bad).values())


def relevant_ids(examples: Iterable[TrainingExample]) -> dict[str, set[str]]:
    """All positives of each query, by its text: none of them is a negative of it."""
    relevant: dict[str, set[str]] = {}
    for example in examples:
        if example.positive.id:
            relevant.setdefault(example.query, set()).add(example.positive.id)
    return relevant


def read_tsv_triples(
    path: Path,
    *,
    queries: Mapping[str, str] | None = None,
    documents: Mapping[str, Passage] | None = None,
) -> Iterator[TrainingExample | BadLine]:
    """Lines of a query, a positive and one or more negatives, between tabs.

    MS MARCO's ``triples.train.small.tsv`` (texts) and ``qidpidtriples.train.full.tsv`` (ids).

    Args:
        path: the file, ``.gz`` and ``.zst`` too; without a header.
        queries: texts by id, if the first column holds ids; None: it holds texts.
        documents: by id, if the others hold ids; None: they hold texts.

    Raises:
        InputError: no such file, or it cannot be read to its end.
    """
    if not path.is_file():
        raise InputError(f"no triples at {path}", "give a .tsv[.gz] file")
    for line in read_lines(path):
        if not line.too_long and not line.data.strip():
            continue
        try:
            query, *others = _fields(line, 3)
            if queries is not None:
                query = _look_up("query", query, queries)
            passages = [
                Passage(text) if documents is None else _look_up("document", text, documents)
                for text in others
            ]
        except ValueError as error:
            yield BadLine(line.number, str(error), path.name)
            continue
        example = TrainingExample(query, passages[0], tuple(passages[1:]), JUDGED)
        yield _checked(example, line.number, path)


def _files(folder: Path, split: str) -> tuple[Path, Path]:
    """A BEIR folder's queries and the judgements of a split."""
    qrels = folder / "qrels" / f"{split}.tsv"
    queries = next((f for name in _QUERIES if (f := folder / name).is_file()), None)
    if queries is None or not qrels.is_file():
        splits = ", ".join(sorted(file.stem for file in (folder / "qrels").glob("*.tsv")))
        missing = qrels if queries else folder / _QUERIES[0]
        raise InputError(f"no {missing}", f"splits here: {splits or 'none'}")
    return queries, qrels


def _checked(example: TrainingExample, line: int, path: Path) -> TrainingExample | BadLine:
    try:
        check_example(example)
    except ValueError as error:
        return BadLine(line, str(error), path.name)
    return example


def _look_up(what: str, identifier: str, known: Mapping[str, _T]) -> _T:
    if identifier not in known:
        raise ValueError(f"no {what} {identifier[:80]!r}")
    return known[identifier]


def _fields(line: RawLine, least: int) -> list[str]:
    """Fields between tabs, at least so many."""
    if line.too_long:
        raise ValueError(TOO_LONG)
    try:
        fields = line.data.decode("utf-8").split("\t")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from error
    if len(fields) < least:
        raise ValueError(f"{len(fields)} fields between tabs, at least {least} are needed")
    return fields


def _judgements(path: Path, bad: list[BadLine]) -> Iterator[tuple[int, str, str, int]]:
    """Line, query, document, relevance; the same pair only once."""
    seen: dict[tuple[str, str], int] = {}
    for line in read_lines(path):
        if not line.too_long and not line.data.strip():
            continue
        if line.number == 1 and line.data.startswith(_HEADER):
            continue
        try:
            query, document, relevance = _fields(line, 3)[:3]
            check_characters("query id", query)
            score = _relevance(relevance)
            if first := seen.get((query, document)):
                raise ValueError(f"the pair of line {first} again")
        except ValueError as error:
            bad.append(BadLine(line.number, str(error), path.name))
            continue
        seen[query, document] = line.number
        yield line.number, query, document, score


def _relevance(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"relevance {text[:20]!r} is not an integer") from None


def _query_texts(path: Path, wanted: set[str], bad: list[BadLine]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for line in read_lines(path):
        if not line.too_long and not line.data.strip():
            continue
        try:
            if line.too_long:
                raise ValueError(TOO_LONG)
            value = read_object(line.data)
            identifier = read_id(value)
            text = value.get("text")
            if not isinstance(text, str) or not text.strip():
                raise ValueError("no text")
            if identifier in texts:
                raise ValueError(f"duplicate id {identifier[:80]!r}")
        except ValueError as error:
            bad.append(BadLine(line.number, str(error), path.name))
            continue
        if identifier in wanted:
            texts[identifier] = text
    return texts
