"""Judged collections in BEIR's layout: corpus, queries.jsonl, qrels/<split>.tsv."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from steelyard.errors import InputError
from steelyard.indexer.reading.ir_datasets_source import IR_DATASETS
from steelyard.indexer.reading.json_lines import read_id, read_object
from steelyard.indexer.reading.streams import TOO_LONG, plain_name, read_lines


@dataclass(frozen=True, slots=True)
class Query:
    """A query and its id."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class JudgedQueries:
    """The judged queries of one split.

    Attributes:
        name: of the collection and split, such as ``scifact/test``.
        queries: those with at least one judgement, in the file's order.
        qrels: query id -> document id -> relevance.
        missing: judged query ids that the query file does not have; they are not measured.
    """

    name: str
    queries: list[Query]
    qrels: dict[str, dict[str, int]]
    missing: int = 0


@dataclass(frozen=True, slots=True)
class BadQuery:
    """A line of a query file that is no query."""

    line: int
    reason: str


def read_queries(path: Path) -> tuple[list[Query], list[BadQuery]]:
    """Queries of a JSONL file, plain or gzipped: ``_id`` or ``id``, and ``text``.

    An empty text is a query (it finds nothing); a line that is none is told beside the others.

    Raises:
        InputError: no such file, or no query in it.
    """
    if not path.is_file():
        raise InputError(f"no queries at {path}", "give a .jsonl[.gz] file")
    queries: list[Query] = []
    bad: list[BadQuery] = []
    seen: set[str] = set()
    for line in read_lines(path):
        if not line.too_long and not line.data.strip():
            continue
        query = TOO_LONG if line.too_long else _query(line.data)
        if isinstance(query, Query) and query.id in seen:
            query = f"duplicate id {query.id!r}"
        if isinstance(query, Query):
            seen.add(query.id)
            queries.append(query)
        else:
            bad.append(BadQuery(line.number, query))
    if not queries:
        first = f": line {bad[0].line}, {bad[0].reason}" if bad else ""
        raise InputError(f"{path} holds no query{first}")
    return queries, bad


def _query(data: bytes) -> Query | str:
    """The query of a line, or why there is none."""
    try:
        value = read_object(data)
        identifier = read_id(value)
    except ValueError as error:
        return str(error)
    text = value.get("text")
    return Query(identifier, text) if isinstance(text, str) else "no text"


def judged_queries(source: str | Path, split: str = "test") -> JudgedQueries:
    """The judged queries of a BEIR folder, or of ``ir_datasets:ID``, whose id names the split.

    Raises:
        InputError: there are none.
        MissingExtraError: ``ir_datasets`` is not installed.
    """
    if str(source).startswith(IR_DATASETS):
        from steelyard.eval.ir_datasets_queries import read_ir_dataset

        return read_ir_dataset(str(source))
    return read_judged(Path(source), split)


def read_qrels_only(path: Path) -> JudgedQueries:
    """Judgements without texts, to measure runs: TREC's four columns, or BEIR's three.

    Raises:
        InputError: no such file, or a line of another form.
    """
    if not path.is_file():
        raise InputError(f"no judgements at {path}", "give a qrels file")
    qrels = read_qrels(path)
    if not qrels:
        raise InputError(f"{path} holds no judgement", "give a qrels file")
    return JudgedQueries(qrels_name(path), [Query(query, "") for query in qrels], qrels)


def qrels_name(path: Path) -> str:
    """What a collection of judgements alone is called when nobody says."""
    return plain_name(path.name).removesuffix(".tsv").removesuffix(".txt")


def read_judged(folder: Path, split: str = "test") -> JudgedQueries:
    """The judged queries of a BEIR folder.

    Raises:
        InputError: no such split, or judgements that do not fit.
    """
    queries_file = next(
        (f for n in ("queries.jsonl", "queries.jsonl.gz") if (f := folder / n).is_file()), None
    )
    qrels_file = folder / "qrels" / f"{split}.tsv"
    if queries_file is None or not qrels_file.is_file():
        missing = qrels_file if queries_file else folder / "queries.jsonl"
        splits = sorted(file.stem for file in (folder / "qrels").glob("*.tsv"))
        raise InputError(f"no {missing}", f"splits here: {', '.join(splits) or 'none'}")
    qrels = read_qrels(qrels_file)
    queries, bad = read_queries(queries_file)
    if bad:
        raise InputError(f"{queries_file}, line {bad[0].line}: {bad[0].reason}", "mend the file")
    judged = [query for query in queries if query.id in qrels]
    if not judged:
        raise InputError(f"no query of {queries_file} is judged in {qrels_file}")
    return JudgedQueries(f"{folder.name}/{split}", judged, qrels, len(qrels) - len(judged))


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Query id -> document id -> relevance.

    Lines are query, document, relevance between tabs, as BEIR has them, or query, iteration,
    document, relevance between white space, as TREC has them. BEIR's header and blank lines are
    passed over.

    Raises:
        InputError: a line of another form.
    """
    qrels: dict[str, dict[str, int]] = {}
    for line in read_lines(path):
        try:
            text = line.data.decode("utf-8")
            blank = not line.too_long and not line.data.strip()
            if blank or (line.number == 1 and text.split("\t")[0] == "query-id"):
                continue
            if text.count("\t") == 2:
                query, document, relevance = text.split("\t")
            else:
                query, _, document, relevance = text.split()
            grade = int(relevance)
            if abs(grade) >= 2**31:
                raise ValueError(relevance)
            qrels.setdefault(query, {})[document] = grade
        except ValueError as error:
            raise InputError(
                f"{path}, line {line.number}: expected query-id, corpus-id, score in UTF-8",
                "separate them by tabs; or TREC's four columns",
            ) from error
    return qrels
