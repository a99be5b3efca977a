"""Milvus Lite: both arms in one collection of one local file.

Facts of the engine that shape this code: search is exact (FLAT, sparse inner product); a file
belongs to one process; a sparse row may not be empty; VARCHAR holds 65,535 bytes; duplicate ids
in one batch are accepted; a returned hit costs about 0.1 ms whatever fields are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from steelyard.errors import EngineError, InputError, needs_extra
from steelyard.plugin.engine import (
    MATCH,
    NO_CANDIDATES,
    AbsentArm,
    Arm,
    Candidates,
    Generation,
    StoredDocument,
    best_first,
)
from steelyard.plugin.filters import Filter
from steelyard.plugin.milvus_filter import COLUMN_PREFIX, ids_expression, milvus_expression
from steelyard.plugin.quantise import quantise
from steelyard.plugin.vocabulary import Vocabulary
from steelyard.types import (
    MAX_ID_BYTES,
    DenseVectors,
    Document,
    EncodedDocuments,
    SparseVectors,
)

PROPERTY = "steelyard"
MAX_WINDOW = 16384
MAX_VARCHAR = 65535
_BATCH = 500
_TEXT_COLUMNS = ("id", "parent_id", "title", "text")


class MilvusLiteEngine:
    """One alias in one Milvus Lite file.

    Args:
        path: the file; made when it is not there.
        alias: the name that users search.
        must_exist: do not make the file.

    Raises:
        EngineError: the file is not there, use by another process, or no
            Milvus Lite file.
    """

    def __init__(self, path: str, alias: str, *, must_exist: bool = False) -> None:
        if not path.endswith(".db"):
            raise InputError(
                f"milvus-lite needs a file that ends in .db, not {path!r}",
                "milvus-lite:///path/file.db?name=NAME",
            )
        if must_exist and not Path(path).exists():
            raise EngineError(f"no Milvus Lite file at {path}", "make one with 'steelyard index'")
        with needs_extra("milvus"):
            import milvus_lite  # noqa: F401
            from pymilvus import MilvusClient
        self._alias = alias
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._client: Any = MilvusClient(path)
        except Exception as error:  # pymilvus wraps what it cannot name
            raise EngineError(
                f"cannot open the Milvus Lite file {path}: {_first_line(error)}",
                "it belongs to one process at a time: close the other one, or check the path",
            ) from error

    @property
    def alias(self) -> str:
        """The name that users search."""
        return self._alias

    def resolve(self) -> Generation | None:
        """The generation that the alias stands for."""
        with _engine_errors("read the alias"):
            if self._alias in self._client.list_collections():
                raise EngineError(
                    f"{self._alias!r} is a collection here, not an alias",
                    "choose another name= in the engine URL",
                )
            if not self._client.has_collection(self._alias):
                return None
            described = self._client.describe_collection(self._alias)
        return _generation(described)

    def generations(self) -> list[Generation]:
        """All generations of this alias, newest first."""
        pattern = re.compile(re.escape(self._alias) + r"_\d{14}_[0-9a-f]{8}")
        with _engine_errors("list the generations"):
            names = [n for n in self._client.list_collections() if pattern.fullmatch(n)]
            found = [self._client.describe_collection(n) for n in sorted(names, reverse=True)]
        return [_generation(described) for described in found]

    def create(self, generation: Generation) -> None:
        """Make an empty collection with both arms and the declared metadata columns."""
        from pymilvus import DataType

        types = {
            "keyword": DataType.VARCHAR,
            "int": DataType.INT64,
            "float": DataType.DOUBLE,
            "bool": DataType.BOOL,
        }
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=MAX_ID_BYTES)
        for column in _TEXT_COLUMNS[1:]:
            schema.add_field(column, DataType.VARCHAR, max_length=MAX_VARCHAR)
        for name, kind in generation.fields.items():
            limit = {"max_length": MAX_VARCHAR} if kind == "keyword" else {}
            schema.add_field(COLUMN_PREFIX + name, types[kind], nullable=True, **limit)
        schema.add_field("dense", DataType.FLOAT_VECTOR, dim=generation.dims)
        schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
        index = self._client.prepare_index_params()
        index.add_index("dense", index_type="FLAT", metric_type="IP")
        index.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
        with _engine_errors(f"create {generation.name}"):
            self._client.create_collection(
                generation.name,
                schema=schema,
                index_params=index,
                properties={PROPERTY: generation.to_json()},
            )

    def upsert(self, generation: Generation, batch: EncodedDocuments) -> int:
        """Write whole documents, in requests of 500; how many weights were clipped."""
        if batch.dense.shape[1] != generation.dims:
            raise EngineError(
                f"vectors of {batch.dense.shape[1]} dimensions for {generation.name}, which has "
                f"{generation.dims}",
                "index with the pack that the generation was made for",
            )
        impacts, clipped = quantise(batch.sparse, generation.scale)
        for first in range(0, len(batch), _BATCH):
            rows = [
                _row(generation, batch.documents[i], batch.dense[i], impacts.row(i))
                for i in range(first, min(first + _BATCH, len(batch)))
            ]
            with _engine_errors(f"write to {generation.name}"):
                self._client.upsert(generation.name, rows)
        return clipped

    def delete(self, generation: Generation, ids: Sequence[str]) -> None:
        """Remove documents by id."""
        with _engine_errors(f"delete documents of {generation.name}"):
            for first in range(0, len(ids), _BATCH):
                expression = ids_expression(ids[first : first + _BATCH])
                self._client.delete(generation.name, filter=expression)

    def seal(self, generation: Generation) -> None:
        """Write segments to disk."""
        with _engine_errors(f"flush {generation.name}"):
            self._client.flush(generation.name)

    def publish(self, generation: Generation) -> None:
        """Point the alias to a generation."""
        current = self.resolve()
        change = self._client.create_alias if current is None else self._client.alter_alias
        with _engine_errors(f"point {self._alias} to {generation.name}"):
            change(generation.name, self._alias)

    def drop(self, generation: Generation) -> None:
        """Remove a generation.

        Raises:
            EngineError: the alias stands for it.
        """
        current = self.resolve()
        if current is not None and current.name == generation.name:
            raise EngineError(f"{generation.name} is what {self._alias} stands for, so it stays")
        with _engine_errors(f"drop {generation.name}"):
            self._client.release_collection(generation.name)
            self._client.drop_collection(generation.name)

    def open(
        self, generation: Generation, vocabulary: Vocabulary | None = None
    ) -> MilvusLiteIndex:
        """A generation for reading."""
        del vocabulary  # terms are numbers here
        with _engine_errors(f"load {generation.name}"):
            self._client.load_collection(generation.name)
        return MilvusLiteIndex(self._client, generation)

    def close(self) -> None:
        """Release the file."""
        self._client.close()


class MilvusLiteIndex:
    """One generation of a Milvus Lite file, open for reading."""

    def __init__(self, client: Any, generation: Generation) -> None:
        self._client = client
        self.generation = generation
        self.dense: Arm[DenseVectors] = _DenseArm(client, generation)
        self.sparse: Arm[SparseVectors] = _SparseArm(client, generation)
        self.match: Arm[Sequence[str]] = AbsentArm(MATCH, generation.name)
        self.arms = generation.arms

    def get(
        self,
        ids: Sequence[str],
        *,
        vectors: bool = False,
        terms: bool = False,
        timeout: float | None = None,
    ) -> Mapping[str, StoredDocument]:
        """Stored documents by id."""
        del terms, timeout
        if not ids:
            return {}
        columns = [*self._columns(), *(["dense"] if vectors else [])]
        with _engine_errors(f"read {self.generation.name}"):
            rows = [
                row
                for first in range(0, len(ids), _BATCH)
                for row in self._client.query(
                    self.generation.name,
                    ids_expression(ids[first : first + _BATCH]),
                    output_fields=columns,
                )
            ]
        return {
            row["id"]: StoredDocument(
                self._document(row),
                np.asarray(row["dense"], dtype=np.float32) if vectors else None,
            )
            for row in rows
        }

    def count(self) -> int:
        """Number of documents."""
        with _engine_errors(f"count {self.generation.name}"):
            rows = self._client.query(self.generation.name, "", output_fields=["count(*)"])
        return int(rows[0]["count(*)"])

    def export(self) -> EncodedDocuments:
        """Everything that is stored, ``sparse`` as impacts: what exact search needs."""
        documents, dense, sparse = [], [], []
        columns = [*self._columns(), "dense", "sparse"]
        unused = self.generation.vocabulary_size
        with _engine_errors(f"export {self.generation.name}"):
            pages = self._client.query_iterator(
                self.generation.name, batch_size=1000, output_fields=columns
            )
            while rows := pages.next():
                for row in rows:
                    documents.append(self._document(row))
                    dense.append(np.asarray(row["dense"], dtype=np.float32))
                    terms = sorted((i, w) for i, w in row["sparse"].items() if i != unused)
                    sparse.append(
                        (
                            np.array([i for i, _ in terms], dtype=np.int32),
                            np.array([w for _, w in terms], dtype=np.float32),
                        )
                    )
            pages.close()
        vectors = np.array(dense, dtype=np.float32).reshape(len(dense), self.generation.dims)
        return EncodedDocuments(documents, vectors, SparseVectors.from_rows(sparse, unused))

    def _columns(self) -> list[str]:
        return [*_TEXT_COLUMNS, *(COLUMN_PREFIX + name for name in self.generation.fields)]

    def _document(self, row: Mapping[str, Any]) -> Document:
        values = ((name, row.get(COLUMN_PREFIX + name)) for name in self.generation.fields)
        return Document(
            id=row["id"],
            text=row["text"],
            title=row["title"],
            parent_id=row["parent_id"],
            metadata={name: value for name, value in values if value is not None},
        )


class _DenseArm:
    def __init__(self, client: Any, generation: Generation) -> None:
        self._client, self._generation = client, generation

    def search(
        self,
        queries: DenseVectors,
        k: int,
        *,
        filter: Filter | None = None,
        offset: int = 0,
        timeout: float | None = None,
    ) -> list[Candidates]:
        """Exact inner products."""
        del timeout
        if queries.shape[1] != self._generation.dims:
            raise EngineError(
                f"queries of {queries.shape[1]} dimensions for {self._generation.name}, which has "
                f"{self._generation.dims}",
                "search with a pack of the index's space",
            )
        usable = np.flatnonzero(queries.any(axis=1))
        found = _search(
            self._client, self._generation, "dense", list(queries[usable]), k, filter, offset, 1.0
        )
        return _scatter(found, usable.tolist(), len(queries))


class _SparseArm:
    def __init__(self, client: Any, generation: Generation) -> None:
        self._client, self._generation = client, generation

    def search(
        self,
        queries: SparseVectors,
        k: int,
        *,
        filter: Filter | None = None,
        offset: int = 0,
        timeout: float | None = None,
    ) -> list[Candidates]:
        """Exact inner products of query weights and impacts, divided by the scale."""
        del timeout
        usable = np.flatnonzero(np.diff(queries.indptr))
        width = queries.vocabulary_size + 1
        rows = [
            csr_matrix((weights, ids, [0, len(ids)]), shape=(1, width))
            for ids, weights in (queries.row(i) for i in usable.tolist())
        ]
        generation = self._generation
        found = _search(
            self._client, generation, "sparse", rows, k, filter, offset, generation.scale
        )
        return _scatter(found, usable.tolist(), len(queries))


def _search(
    client: Any,
    generation: Generation,
    arm: str,
    rows: list[Any],
    k: int,
    filter: Filter | None,
    offset: int,
    scale: float,
) -> list[Candidates]:
    if k < 1 or offset < 0 or offset + k > MAX_WINDOW:
        raise InputError(
            f"offset {offset} + k {k} candidates, Milvus gives 1 to {MAX_WINDOW:,}",
            "ask for fewer",
        )
    if not rows:
        return []
    expression = milvus_expression(filter, generation.fields)
    with _engine_errors(f"search {generation.name}"):
        answers = client.search(
            generation.name,
            data=rows,
            anns_field=arm,
            limit=k,
            offset=offset,
            filter=expression,
            search_params={"metric_type": "IP"},
        )
    return [
        best_first(list(hits.ids), np.asarray(hits.distances, dtype=np.float64) / scale, k)
        for hits in answers
    ]


def _scatter(found: list[Candidates], rows: list[int], total: int) -> list[Candidates]:
    answers = [NO_CANDIDATES] * total
    for row, candidates in zip(rows, found, strict=True):
        answers[row] = candidates
    return answers


def _row(
    generation: Generation, document: Document, dense: DenseVectors, terms: tuple[Any, Any]
) -> dict[str, Any]:
    ids, impacts = terms
    # A document without a term gets the one column that no query has.
    sparse = dict(zip(ids.tolist(), impacts.tolist(), strict=True)) or {
        generation.vocabulary_size: 1.0
    }
    row: dict[str, Any] = {
        "id": document.id,
        "parent_id": document.parent_id or document.id,
        "title": _cut(document.title),
        "text": _cut(document.text),
        "dense": dense,
        "sparse": sparse,
    }
    for name in generation.fields:
        row[COLUMN_PREFIX + name] = document.metadata.get(name)
    return row


def _cut(text: str) -> str:
    """What a VARCHAR holds; only the displayed text is cut, the vectors saw all of it."""
    encoded = text.encode()
    return text if len(encoded) <= MAX_VARCHAR else encoded[:MAX_VARCHAR].decode(errors="ignore")


def _generation(described: Mapping[str, Any]) -> Generation:
    text = described["properties"].get(PROPERTY, "")
    return Generation.from_json(text, f"collection {described['collection_name']}")


@contextmanager
def _engine_errors(action: str) -> Iterator[None]:
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except MilvusException as error:
        raise EngineError(f"Milvus could not {action}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    text = str(getattr(error, "message", "") or error or type(error).__name__)
    return text.splitlines()[0][:300] if text else type(error).__name__
