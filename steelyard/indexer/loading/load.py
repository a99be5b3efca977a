"""Shards to an engine: a new generation, loaded, counted, then published by its alias."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from steelyard.encoders.pack.metadata import PackMetadata
from steelyard.encoders.pack.spaces import short_hash
from steelyard.errors import EngineError, PackMismatchError, SteelyardError
from steelyard.indexer.encoding.manifest import Manifest, check_shard
from steelyard.indexer.encoding.shards import read_shard
from steelyard.plugin.engine import Engine, Generation
from steelyard.plugin.exact import ExactIndex
from steelyard.plugin.quantise import quantise
from steelyard.progress import Progress
from steelyard.types import EncodedDocuments, SparseVectors


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load did.

    Attributes:
        generation: physical name that the alias now stands for.
        documents: the engine's own count.
        clipped: sparse weights cut to the largest impact.
        reused: the alias already stood for exactly this.
        dropped: generations removed: older ones, and what killed loads left behind.
    """

    generation: str
    documents: int
    clipped: int
    reused: bool
    dropped: list[str]


def load_shards(
    manifest: Manifest,
    folder: Path,
    pack: PackMetadata,
    engine: Engine,
    progress: Progress,
    *,
    keep: int = 1,
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
) -> LoadReport:
    """Load a folder of shards into a new generation and publish it.

    Readers see the old generation until the new one is complete; a load that fails leaves the
    alias as it was.

    Args:
        manifest, folder: of the shards.
        pack: whose spaces the shards must have.
        engine: where to.
        progress: shows the documents loaded.
        keep: older generations to keep.
        now: the clock, for the generation's name.

    Raises:
        PackMismatchError: the shards are of another space than the pack.
        EngineError: the engine failed, or its count is not the shards'.
    """
    plan, spaces = manifest.plan, pack.spaces
    if (plan.dense_space, plan.sparse_space) != (spaces.dense, spaces.sparse):
        raise PackMismatchError(
            f"the shards are in {plan.dense_space} and {plan.sparse_space}, the pack is for "
            f"{spaces.dense} and {spaces.sparse}",
            "encode the corpus with this pack",
        )
    content = short_hash(
        [manifest.content, plan.fields, spaces.dense, spaces.sparse, pack.sparse.scale]
    )
    current = engine.resolve()
    if current is not None and current.content == content:
        count = engine.open(current).count()
        if count == manifest.encoded:
            progress.say(f"{engine.alias} already holds exactly this: {current.name}")
            if current.pack_id != pack.pack_id:
                progress.say(
                    f"it was made with {current.pack_id}, of the same spaces: {pack.pack_id} "
                    "searches it as it is"
                )
            return LoadReport(current.name, count, 0, True, [])
    dropped = _drop_unpublished(engine, current, progress)
    moment = now().strftime("%Y%m%d%H%M%S")
    name = f"{engine.alias}_{moment}_{short_hash([content, moment], 8)}"
    generation = _generation(name, manifest, pack, content)
    try:
        engine.create(generation)
        count, clipped = _fill(generation, manifest, folder, engine, progress)
        engine.publish(generation)
    except BaseException:
        with contextlib.suppress(SteelyardError):
            engine.drop(generation)
        raise
    older = [g for g in engine.generations() if g.name != name and not g.columns]
    dropped += _drop(engine, older[keep:], progress)
    return LoadReport(name, count, clipped, False, dropped)


def _drop_unpublished(engine: Engine, current: Generation | None, progress: Progress) -> list[str]:
    """Remove what a load that was killed left behind: generations newer than the published."""
    if current is not None and current.columns:
        return []  # an adopted index: its name says nothing of when it was published
    found = engine.generations()
    left = [g for g in found if current is None or g.name > current.name]
    return _drop(engine, left, progress)


def _drop(engine: Engine, generations: list[Generation], progress: Progress) -> list[str]:
    """Remove generations; one that will not go is told, not an error: the new one is live."""
    dropped = []
    for generation in generations:
        try:
            engine.drop(generation)
            dropped.append(generation.name)
        except SteelyardError as error:
            progress.say(f"could not drop {generation.name}: {error}")
    return dropped


def exact_index(manifest: Manifest, folder: Path, pack: PackMetadata) -> ExactIndex:
    """The shards as an exact in-memory index, with the impacts an engine would hold."""
    contents = [read_shard(folder / entry.name) for entry in manifest.shards]
    sparse = [quantise(content.sparse, pack.sparse.scale)[0] for content in contents]
    joined = EncodedDocuments(
        [document for content in contents for document in content.documents],
        np.concatenate([content.dense for content in contents]),
        SparseVectors.from_rows(
            [row for part in sparse for row in part.rows()], manifest.plan.vocabulary_size
        ),
    )
    return ExactIndex(_generation("exact", manifest, pack, "in_memory"), joined)


def template_generation(manifest: Manifest, pack: PackMetadata) -> Generation:
    """What a generation of these shards is, but for its name: for benchmarks."""
    return _generation("template", manifest, pack, "template")


def _generation(name: str, manifest: Manifest, pack: PackMetadata, content: str) -> Generation:
    return Generation(
        name=name,
        dense_space=pack.spaces.dense,
        sparse_space=pack.spaces.sparse,
        pack_id=pack.pack_id,
        content=content,
        dims=manifest.plan.dims,
        vocabulary_size=manifest.plan.vocabulary_size,
        scale=pack.sparse.scale,
        fields=manifest.plan.fields,
    )


def _fill(
    generation: Generation, manifest: Manifest, folder: Path, engine: Engine, progress: Progress
) -> tuple[int, int]:
    """Load all shards; the engine's own count, and the weights clipped."""
    clipped = 0
    with progress.stage("load documents", manifest.encoded) as advance:
        for entry in manifest.shards:
            check_shard(folder, entry)
            clipped += engine.upsert(generation, read_shard(folder / entry.name))
            advance(entry.documents)
        engine.seal(generation)
    count = engine.open(generation).count()
    if count != manifest.encoded:
        raise EngineError(
            f"{generation.name} counts {count} documents, {manifest.encoded} were sent",
            "the old generation stays in place: look at the engine's log and load again",
        )
    return count, clipped
