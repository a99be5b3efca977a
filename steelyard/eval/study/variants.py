"""Variants of the recipe by name: ``words+average-2``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from steelyard.encoders.distillation.settings import (
    AVERAGE,
    JOIN,
    WORDS,
    DistillationSettings,
)
from steelyard.errors import InputError

DEFAULT = "default"
MARGIN_ALONE, MARGIN_BESIDE = 0.1, 0.05
"""Weights that make margin-MSE about as large as the divergence at the end of training."""

_PARTS: tuple[tuple[str, Callable[[float], dict[str, Any]]], ...] = (
    (DEFAULT, lambda _: {}),
    (r"([\d.]+)k", lambda n: {"pseudo_queries": round(n * 1000)}),
    (r"average-(\d+)", lambda n: {"pools": int(n), "pooling": AVERAGE}),
    (r"join-(\d+)", lambda n: {"pools": int(n), "pooling": JOIN}),
    ("words", lambda _: {"start": WORDS}),
    ("margin", lambda _: {"divergence": 0.0, "margin": MARGIN_ALONE}),
    ("both-losses", lambda _: {"margin": MARGIN_BESIDE}),
    (r"epochs-(\d+)", lambda n: {"epochs": int(n)}),
    (r"lean-([\d.]+)", lambda x: {"lean": x}),
)
DEFAULT_VARIANTS = "default,36k,108k,join-2,average-2,words,margin,both-losses"


@dataclass(frozen=True, slots=True)
class Variant:
    """A name and the settings it stands for; the seed is set for each run."""

    name: str
    settings: DistillationSettings


def parse_variants(text: str) -> list[Variant]:
    """Read a comma-separated list; each is one or more parts joined by ``+``.

    Parts: ``default``, ``48k`` (pseudo-queries of a pool), ``average-2`` and ``join-2`` (pools,
    see the settings), ``words`` (start), ``margin`` (margin-MSE in place of the divergence),
    ``both-losses``, ``epochs-6``, ``lean-0.1``.

    Raises:
        InputError: an unknown part, or a variant twice.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or len(set(names)) != len(names):
        raise InputError(f"no or repeated variants in {text!r}", f"for example {DEFAULT_VARIANTS}")
    return [_variant(name) for name in names]


def _variant(name: str) -> Variant:
    settings = DistillationSettings()
    for part in name.split("+"):
        for pattern, changes in _PARTS:
            if found := re.fullmatch(pattern, part):
                try:
                    number = float(found[1]) if found.groups() else 0.0
                except ValueError as error:
                    raise InputError(f"no number in {part!r}", "write it as 48k") from error
                settings = replace(settings, **changes(number))
                break
        else:
            raise InputError(f"no variant {part!r} in {name!r}", f"for example {DEFAULT_VARIANTS}")
    return Variant(name, settings)
