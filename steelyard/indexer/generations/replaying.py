"""Changes into an older generation, encoded by the pack that it was made with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import PackError, PackMismatchError
from steelyard.indexer.changes.encoder import ChangeEncoder
from steelyard.plugin.engine import Generation
from steelyard.plugin.packs import open_packs
from steelyard.plugin.records import RecordStore
from steelyard.plugin.urls import open_engine
from steelyard.progress import Progress


def replay_with(
    url: str,
    store: RecordStore,
    generation: Generation,
    after: int,
    packs: Sequence[Path],
    progress: Progress,
    *,
    encodes: bool,
) -> int:
    """Replay the log into a generation; the number of the last change that it contains then.

    Args:
        url: of the engine, which is opened once more: terms are written by a pack's tokenizer.
        store: records of the alias.
        generation: where to.
        after: number of the last change that it contains.
        packs: folders of packs, or of folders of them.
        progress: shows the changes done.
        encodes: whether there are documents among the changes; deletes need no pack.

    Raises:
        PackError: none of the packs is of the generation's spaces.
    """
    from steelyard.indexer.changes.replay import replay

    pack = _fitting(generation, packs) if encodes else None
    engine = open_engine(url, must_exist=True, vocabulary=None if pack is None else pack.tokenizer)

    def encoder() -> ChangeEncoder:
        if pack is None:
            raise _missing(generation)
        return _encoder(pack, progress)

    try:
        return replay(store, engine, generation, encoder, after, progress)
    finally:
        engine.close()


def _fitting(generation: Generation, packs: Sequence[Path]) -> QueryEncoder:
    for path in packs:
        try:
            return open_packs(path).encoder_for(generation)
        except PackMismatchError:
            continue
    raise _missing(generation)


def _missing(generation: Generation) -> PackError:
    return PackMismatchError(
        f"no pack of the spaces of {generation.name} is at hand, it was made with "
        f"{generation.pack_id}",
        "name it by --pack",
    )


def _encoder(pack: QueryEncoder, progress: Progress) -> ChangeEncoder:
    from steelyard.encoders.documents.from_pack import open_document_encoder
    from steelyard.indexer.changes.encoder import PackChangeEncoder

    return PackChangeEncoder(pack, lambda: open_document_encoder(pack, say=progress.say))
