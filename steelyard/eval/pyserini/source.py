"""Encoded documents to export: a folder of shards, or what an engine holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import EngineError, InputError
from steelyard.plugin.engine import VECTOR_ARMS
from steelyard.plugin.quantise import quantise
from steelyard.types import EncodedDocuments


@dataclass(frozen=True, slots=True)
class Source:
    """Documents with their vectors, a part at a time.

    Attributes:
        name: where they come from.
        dims: of the dense vectors.
        arms: the arms that are there.
        parts: documents; ``sparse`` as impacts.
    """

    name: str
    dims: int
    arms: tuple[str, ...]
    parts: Iterator[EncodedDocuments]


@contextmanager
def open_source(where: str, pack: QueryEncoder) -> Iterator[Source]:
    """A folder of shards, read one by one, or the index that an engine's URL stands for.

    Args:
        where: the folder or the URL.
        pack: whose spaces the documents must have.

    Raises:
        InputError: it is neither.
        EngineError: there is no such index.
        PackMismatchError: the documents are of other spaces.
    """
    if Path(where).is_dir():
        yield _shards(Path(where), pack)
    elif ":" in where or "=" in where:
        with _engine(where, pack) as source:
            yield source
    else:
        raise InputError(
            f"no folder of shards at {where}",
            "name the --shards of 'steelyard index' or 'encode-documents', or an engine's URL",
        )


def _shards(folder: Path, pack: QueryEncoder) -> Source:
    from steelyard.indexer.encoding.manifest import check_shard
    from steelyard.indexer.encoding.shards import read_shard
    from steelyard.indexer.loading.generation import check_spaces
    from steelyard.indexer.loading.load import complete_folder

    manifest = complete_folder(folder)
    check_spaces(manifest.plan, pack.metadata)

    def parts() -> Iterator[EncodedDocuments]:
        for entry in manifest.shards:
            check_shard(folder, entry)
            content = read_shard(folder / entry.name)
            impacts, _ = quantise(content.sparse, pack.metadata.sparse.scale)
            yield EncodedDocuments(content.documents, content.dense, impacts)

    return Source(str(folder), manifest.plan.dims, VECTOR_ARMS, parts())


@contextmanager
def _engine(url: str, pack: QueryEncoder) -> Iterator[Source]:
    from steelyard.plugin.packs import check_spaces
    from steelyard.plugin.urls import open_engine

    engine = open_engine(url, must_exist=True, vocabulary=pack.tokenizer)
    try:
        generation = engine.resolve()
        if generation is None:
            raise EngineError(f"no index {engine.alias!r} in {url}", "run 'steelyard index' first")
        check_spaces(pack.metadata.spaces, generation)
        index = engine.open(generation)
        arms = tuple(arm for arm in VECTOR_ARMS if arm in index.arms)
        yield Source(generation.name, generation.dims, arms, iter([index.export()]))
    finally:
        engine.close()
