"""Judged queries of an installed ``ir_datasets``: ``ir_datasets:beir/scifact/test``."""

from __future__ import annotations

from typing import Any

from steelyard.errors import InputError
from steelyard.eval.collection import JudgedQueries, Query
from steelyard.indexer.reading.ir_datasets_source import IR_DATASETS, open_ir_dataset, reading


def read_ir_dataset(source: str) -> JudgedQueries:
    """The queries of a data set that are judged, in its order.

    A query's text is the package's ``default_text()``: of TREC topics, the title.

    Raises:
        InputError: no such data set, it has no judgements, or cannot be downloaded.
        MissingExtraError: the package is not installed.
    """
    open_ir_dataset(source, "qrels")
    found = open_ir_dataset(source, "queries")
    qrels: dict[str, dict[str, int]] = {}
    with reading(source):
        for judgement in found.qrels_iter():
            qrels.setdefault(judgement.query_id, {})[judgement.doc_id] = judgement.relevance
        queries = [Query(query.query_id, _text(query)) for query in found.queries_iter()]
    judged = [query for query in queries if query.id in qrels]
    if not judged:
        raise InputError(f"no query of {source} is judged", "choose another of its data sets")
    return JudgedQueries(source.removeprefix(IR_DATASETS), judged, qrels, len(qrels) - len(judged))


def _text(query: Any) -> str:
    text = query.default_text() if hasattr(query, "default_text") else query.text
    return str(text)
