"""Queries and judgements as Pyserini's commands take them, the vectors made beforehand.

``topics.json`` and not a TSV file is what the commands read: of a TSV Pyserini makes numbers of
ids (``007`` is 7), and its text goes through Java.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.encoders.query.tokenizer import well_formed
from steelyard.errors import InputError, needs_extra
from steelyard.eval.collection import JudgedQueries, Query
from steelyard.eval.pyserini.ids import check_ids
from steelyard.eval.pyserini.query_encoders import query_impacts
from steelyard.plugin.engine import DENSE, SPARSE
from steelyard.types import DenseVectors

TOPICS, TOPICS_TSV, QRELS = "topics.json", "topics.tsv", "qrels.txt"
SPARSE_FILE, DENSE_FILE = "sparse.jsonl", "embedding.pkl"
"""Names that Pyserini itself gives meaning to: ``.jsonl`` and ``embedding.pkl``."""


@dataclass(frozen=True, slots=True)
class WrittenQueries:
    """What was written.

    Attributes:
        count: of queries.
        without_dense, without_sparse: those without a known token for that arm.
        judgements: lines of the qrels file.
    """

    count: int
    without_dense: int
    without_sparse: int
    judgements: int


def write_queries(
    folder: Path, judged: JudgedQueries, pack: QueryEncoder, arms: tuple[str, ...], scale: int
) -> WrittenQueries:
    """Topics, encoded queries and qrels of a judged collection into one folder, which is made.

    Args:
        folder: where to.
        judged: the queries; each is encoded as it is.
        pack: their encoder.
        arms: which to encode.
        scale: of the sparse weights.

    Raises:
        InputError: an id with white space, or two queries that Pyserini cannot tell apart.
    """
    check_ids([query.id for query in judged.queries], "query")
    # A lone surrogate cannot be written; the encoder reads U+FFFD in its place too.
    judged = replace(judged, queries=[Query(q.id, well_formed(q.text)) for q in judged.queries])
    texts = _texts(judged.queries)
    folder.mkdir(parents=True)
    topics = {query.id: {"title": query.text.strip()} for query in judged.queries}
    (folder / TOPICS).write_text(json.dumps(topics, ensure_ascii=False, indent=1), "utf-8")
    lines = [f"{query.id}\t{' '.join(query.text.split())}\n" for query in judged.queries]
    (folder / TOPICS_TSV).write_text("".join(lines), encoding="utf-8")
    encoded = pack.encode_query(list(texts.values()))
    if SPARSE in arms:
        vectors = query_impacts(encoded.sparse, scale)
        values = [
            {"contents": text, "vector": vector}
            for text, vector in zip(texts, vectors, strict=True)
        ]
        rows = [json.dumps(value, ensure_ascii=False) + "\n" for value in values]
        (folder / SPARSE_FILE).write_text("".join(rows), encoding="utf-8")
    if DENSE in arms:
        _write_embeddings(folder / DENSE_FILE, list(texts), encoded.dense)
    place = {text: row for row, text in enumerate(texts)}
    rows_of = [place[query.text.strip()] for query in judged.queries]
    lengths = np.diff(encoded.sparse.indptr)
    return WrittenQueries(
        len(judged.queries),
        int(np.count_nonzero(~encoded.dense[rows_of].any(axis=1))),
        int(np.count_nonzero(lengths[rows_of] == 0)),
        _write_qrels(folder / QRELS, judged),
    )


def _texts(queries: list[Query]) -> dict[str, str]:
    """What Pyserini knows a text by, which is without white space around it -> the text."""
    texts: dict[str, str] = {}
    first: dict[str, str] = {}
    for query in queries:
        key = query.text.strip()
        if texts.setdefault(key, query.text) != query.text:
            raise InputError(
                f"the queries {first[key]!r} and {query.id!r} differ by the white space around "
                "them only, and Pyserini finds encoded queries by their text without it",
                "leave one of them out",
            )
        first.setdefault(key, query.id)
    return texts


def _write_embeddings(path: Path, texts: list[str], vectors: DenseVectors) -> None:
    """The pickled data frame that Pyserini's ``--encoded-queries`` reads."""
    with needs_extra("pyserini"):
        import pandas as pd

    # Plain Python objects: an older pandas has no string type to unpickle.
    columns = {"text": texts, "embedding": list(vectors)}
    frame = pd.DataFrame({k: pd.Series(v, dtype=object) for k, v in columns.items()})
    frame.to_pickle(path)


def _write_qrels(path: Path, judged: JudgedQueries) -> int:
    """``query 0 document relevance``, the queries of the topics only."""
    lines = []
    for query in judged.queries:
        check_ids(judged.qrels[query.id], "judged document")
        lines += [f"{query.id} 0 {d} {r}\n" for d, r in judged.qrels[query.id].items()]
    path.write_text("".join(lines), encoding="utf-8")
    return len(lines)
