"""Which pack searches a generation: one that was opened, or the right one of a folder of packs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

from steelyard.encoders.pack.files import PACK_JSON, read_metadata
from steelyard.encoders.pack.metadata import Spaces
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import PackError, PackMismatchError
from steelyard.plugin.engine import DENSE, SPARSE, Generation

_OPEN = 2
"""Packs kept open: that of the generation before and that of now."""


class Packs(Protocol):
    """Where query encoders come from."""

    def encoder_for(self, generation: Generation) -> QueryEncoder:
        """The encoder of a generation's queries.

        Raises:
            PackError: there is none for its spaces.
        """


class OnePack:
    """A single pack: it searches whatever generation is of its spaces."""

    def __init__(self, encoder: QueryEncoder) -> None:
        self.encoder = encoder

    def encoder_for(self, generation: Generation) -> QueryEncoder:
        """See ``Packs``."""
        check_spaces(self.encoder.metadata.spaces, generation)
        return self.encoder


class PackFolder:
    """A folder of packs, each in a folder of its own; looked through again for a new generation.

    Args:
        path: the folder.

    Raises:
        PackError: there is no such folder, or no pack in it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: dict[str, QueryEncoder] = {}
        if not self._found():
            raise PackError(
                f"no query pack in {path}", "name a pack's folder, or a folder of packs"
            )

    def encoder_for(self, generation: Generation) -> QueryEncoder:
        """The pack that the generation was made with; else one of its spaces.

        Raises:
            PackMismatchError: there is neither.
            PackError: it is damaged.
        """
        known = self._open.get(generation.pack_id)
        if known is not None:
            return known
        found = self._found()
        name = generation.pack_id if generation.pack_id in found else None
        if name is None:
            same = sorted(i for i, (_, s) in found.items() if not _differing(s, generation))
            name = next((i for i in same if i in self._open), same[0] if same else None)
        if name is None:
            raise PackMismatchError(
                f"{generation.name} was made with pack {generation.pack_id}, and none of the "
                f"{len(found)} packs in {self._path} is that one or of its spaces",
                f"put the pack into {self._path}",
            )
        if name not in self._open:
            encoder = QueryEncoder.load(found[name][0])
            check_spaces(encoder.metadata.spaces, generation)
            while len(self._open) >= _OPEN:
                del self._open[next(iter(self._open))]
            self._open[name] = encoder
        return self._open[name]

    def _found(self) -> dict[str, tuple[Path, Spaces]]:
        """Folder and spaces by pack id; what is no pack (any more) is passed over."""
        found: dict[str, tuple[Path, Spaces]] = {}
        for file in sorted(self._path.glob(f"*/{PACK_JSON}")):
            try:
                metadata = read_metadata(file.parent)
            except PackError:
                continue
            found.setdefault(metadata.pack_id, (file.parent, metadata.spaces))
        return found


def open_packs(path: str | Path) -> Packs:
    """A pack's folder, or a folder of packs.

    Raises:
        PackError: it is neither, or the pack is damaged.
    """
    folder = Path(path)
    if folder.is_dir() and not (folder / PACK_JSON).exists():
        return PackFolder(folder)
    return OnePack(QueryEncoder.load(folder))


def check_spaces(
    spaces: Spaces, generation: Generation, hint: str = "", *, here: bool = False
) -> None:
    """Refuse a pack whose spaces are not the index's, showing both.

    Args:
        spaces: of the pack.
        generation: the index.
        hint: what to do about it.
        here: look only at the arms that this engine holds, not at its pair's.
    """
    if here:
        generation = replace(generation, arms_elsewhere=())
    for arm, ours, theirs in _differing(spaces, generation):
        raise PackMismatchError(
            f"the pack's {arm} space is {ours}, the documents of {generation.name} are in "
            f"{theirs}",
            hint or "search with a pack of that space, or index the corpus with this pack",
        )


def _differing(spaces: Spaces, generation: Generation) -> list[tuple[str, str, str]]:
    """Arm, the pack's space and the index's, of arms that the index has."""
    both = (
        (DENSE, spaces.dense, generation.dense_space),
        (SPARSE, spaces.sparse, generation.sparse_space),
    )
    held = (*generation.arms, *generation.arms_elsewhere)
    return [(arm, ours, theirs) for arm, ours, theirs in both if arm in held and ours != theirs]
