"""All contenders in one process, taking turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.eval.bench.peers.agreement import dense_agreement, sparse_agreement
from steelyard.eval.bench.peers.look_up import LookUp
from steelyard.eval.bench.peers.peer import DENSE, SPARSE, Opened, Peer, Setting
from steelyard.eval.bench.peers.trouble import trouble
from steelyard.types import l2_normalise

_AGAIN = 1024
_AGAIN_ALONE = 256
_AGAIN_SLOW = 2
_SLOW_SECONDS = 1.0
_SLOW_ROUNDS = 3
_WARM_SECONDS = 2.0


@dataclass
class _Entry:
    """One contender in the race."""

    peer: Peer
    opened: Opened
    set_back: Callable[[], None]


def race(
    peers: Sequence[Peer],
    setting: Setting,
    folder: Path,
    texts: Sequence[str],
    warm: Sequence[str],
    sizes: Sequence[int],
    rounds: int,
) -> dict[str, Any]:
    """Time them.

    Words that a contender remembers come from other texts: before each timing it is set back to
    them, and has then encoded some of them again, not timed, since setting it back has just
    emptied the processor's caches.

    Args:
        peers: ours first.
        setting: shared by all.
        folder: a folder for each contender's files, by name.
        texts: the queries, all different and none among ``warm``.
        warm: other texts.
        sizes: of batches.
        rounds: turns of each, one more not counted; one that needs over a second for a turn gets
            three.

    Returns:
        By contender: ``speed``, ``facts``, ``dims``, ``difference``, or what ``trouble``
        says; and ``split``.
    """
    results: dict[str, dict[str, Any]] = {}
    entries: list[_Entry] = []
    for peer in peers:
        try:
            opened = peer.open(setting, folder / peer.name)
            set_back = opened.keep()
            results[peer.name] = _checked(peer, opened, setting, texts)
            set_back()  # what the check taught is not known when the timing begins
            if peer.most is None:
                _warm(opened, warm)
            facts = opened.facts(texts) if opened.facts is not None else {}
            entries.append(_Entry(peer, opened, opened.keep()))
            results[peer.name] |= {"facts": facts, "speed": {}}
        except Exception as error:  # one contender's trouble is not the others'
            results[peer.name] = dict(trouble(error))
    for size in sizes:
        for name, found in _one_size(entries, texts, warm, size, rounds).items():
            if "microseconds" not in found:
                results[name] = found
                entries = [entry for entry in entries if entry.peer.name != name]
            else:
                results[name]["speed"][str(size)] = found
    return {"contenders": results, "split": _split(setting, texts, warm, rounds)}


def _warm(opened: Opened, warm: Sequence[str]) -> None:
    """Show the other texts, all to one that says what it knows, for some seconds to others."""
    started = time.perf_counter()
    for start in range(0, len(warm), _AGAIN):
        if opened.facts is None and time.perf_counter() - started > _WARM_SECONDS:
            return
        opened.many(warm[start : start + _AGAIN])


def _checked(peer: Peer, opened: Opened, setting: Setting, texts: Sequence[str]) -> dict[str, Any]:
    """Its dims, and that vectors which should equal ours do: a fresh encoder is asked."""
    some = list(texts) if peer.most is None else list(texts[: peer.most])
    reference = QueryEncoder.load(setting.pack)
    if isinstance(peer, LookUp):
        return {"dims": reference.dims}
    if peer.gives == SPARSE and opened.sparse is not None:
        return sparse_agreement(reference.encode_sparse(some), opened.sparse(some), reference)
    if peer.gives == DENSE and opened.dense is not None:
        return dense_agreement(reference, some, opened.dense(some), exact=peer.most is None)
    return {}


def _one_size(
    entries: Sequence[_Entry], texts: Sequence[str], warm: Sequence[str], size: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """Each contender's figures at one batch size, or why it has none."""
    seconds: dict[str, list[float]] = {entry.peer.name: [] for entry in entries}
    slow = {entry.peer.name for entry in entries if entry.peer.most is not None}
    found: dict[str, dict[str, Any]] = {}
    for turn in range(rounds + 1):
        for entry in entries:
            name = entry.peer.name
            if name in found or (name in slow and turn > _SLOW_ROUNDS):
                continue
            again = _AGAIN_SLOW if name in slow else _AGAIN_ALONE if size == 1 else _AGAIN
            try:
                took = _turn(entry, _some(entry, texts), warm[-again:] or texts[:1], size)
            except Exception as error:  # as above
                found[name] = dict(trouble(error))
                continue
            if turn:
                seconds[name].append(took)
            elif took > _SLOW_SECONDS:
                slow.add(name)
    for entry in entries:
        name, count = entry.peer.name, len(_some(entry, texts))
        if name not in found:
            found[name] = {
                "batch": min(size, count),
                "queries": count,
                "rounds": len(seconds[name]),
                "microseconds": statistics.median(seconds[name]) / count * 1e6,
            }
    return found


def _turn(entry: _Entry, texts: Sequence[str], again: Sequence[str], size: int) -> float:
    """Seconds for all texts."""
    run = _calls(entry.opened, size)
    run(again)
    entry.opened.forget()
    started = time.perf_counter()
    run(texts)
    took = time.perf_counter() - started
    entry.set_back()
    return took


def _some(entry: _Entry, texts: Sequence[str]) -> Sequence[str]:
    return texts if entry.peer.most is None else texts[: entry.peer.most]


def _calls(opened: Opened, size: int) -> Callable[[Sequence[str]], None]:
    def alone(texts: Sequence[str]) -> None:
        for text in texts:
            opened.one(text)

    def batches(texts: Sequence[str]) -> None:
        for start in range(0, len(texts), size):
            opened.many(texts[start : start + size])

    return alone if size == 1 else batches


def _split(
    setting: Setting, texts: Sequence[str], warm: Sequence[str], rounds: int
) -> dict[str, float]:
    """Where a look-up's time goes, microseconds a query, all texts in one batch."""
    encoder = QueryEncoder.load(setting.pack)
    table = encoder.tables[encoder.metadata.dense.default_table]
    for start in range(0, len(warm), _AGAIN):
        encoder.encode_dense(warm[start : start + _AGAIN])
    known = encoder.words.known() if encoder.words is not None else None
    again = list(warm[-_AGAIN:] or texts[:1])
    seconds: dict[str, list[float]] = {"token ids": [], "table": [], "normalise": []}
    for turn in range(rounds + 1):
        if encoder.words is not None and known is not None:
            encoder.words.remember(known)
        encoder.encode_dense(again)
        moments = [time.perf_counter()]
        tokens = encoder.dense_tokens.encode(texts)
        moments.append(time.perf_counter())
        vectors = table.encode(tokens)
        moments.append(time.perf_counter())
        l2_normalise(vectors)
        moments.append(time.perf_counter())
        if turn:
            for part, begun, ended in zip(seconds.values(), moments, moments[1:], strict=False):
                part.append(ended - begun)
    split = {
        name: statistics.median(values) / len(texts) * 1e6 for name, values in seconds.items()
    }
    split["sum of rows"] = max(0.0, split.pop("table") - split["normalise"])
    return split
