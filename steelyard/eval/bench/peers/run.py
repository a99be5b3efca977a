"""``steelyard bench peers``: lay the contenders out, measure each alone, then all in turns."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from steelyard.encoders.pack.files import read_metadata
from steelyard.errors import InputError
from steelyard.eval.bench.machine import machine
from steelyard.eval.bench.peers.contenders import OURS
from steelyard.eval.bench.peers.peer import Peer, Setting
from steelyard.eval.bench.peers.result import SIZES, Contender, PeersResult, Speed
from steelyard.progress import Progress

_BY_ONE_THREAD = {
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_LIBRARIES = (
    "numpy", "scipy", "tokenizers", "model2vec", "sentence-transformers", "torch", "fastembed",
    "bm25s",
)  # fmt: skip
_MOST_QUERIES = 8 * SIZES[-1]


def bench_peers(
    peers: Sequence[Peer],
    setting: Setting,
    queries: Sequence[str],
    warm: Sequence[str],
    progress: Progress,
    *,
    rounds: int = 15,
    starts: int = 3,
    one_thread: bool = True,
) -> PeersResult:
    """Measure them.

    Args:
        peers: ours first.
        setting: shared by all.
        queries: real ones; each is timed once a round. From 1,024 on, whole batches of them.
        warm: other texts, such as passages, whose words are known when the timing begins.
        progress: shows the steps.
        rounds: of quick contenders, at each batch size; 0 leaves speed out.
        starts: of each contender's own process, one more not counted; 0 leaves start and memory
            out.
        one_thread: also race the quick ones by one thread.

    Raises:
        InputError: no queries, or ours cannot be measured.
    """
    seen = set(warm)
    texts = [text for text in dict.fromkeys(queries) if text not in seen and text.strip()]
    if len(texts) > SIZES[-1]:
        texts = texts[: min(_MOST_QUERIES, len(texts) // SIZES[-1] * SIZES[-1])]
    if not texts:
        raise InputError("no query is left to be timed", "give a file with more queries")
    contenders = [Contender(p.name, p.title, p.gives, p.install) for p in peers]
    result = PeersResult(
        pack=read_metadata(Path(setting.pack)).name,
        machine=_machine(),
        threads=machine()["cores"] or 1,
        queries=len(texts),
        warm_texts=len(warm),
        rounds=rounds,
        contenders=contenders,
    )
    with tempfile.TemporaryDirectory(prefix="steelyard-peers-") as name:
        task = _Tasks(setting, Path(name), texts, warm, rounds)
        with progress.stage("each alone", len(peers)) as advance:
            for contender in contenders:
                _alone(task, contender, starts)
                _tell(progress, contender)
                advance(1)
        if not contenders[0].present:
            raise InputError(
                f"{OURS.name} cannot be measured: {contenders[0].failed or contenders[0].missing}"
            )
        present = [contender for contender in contenders if contender.present]
        if rounds:
            with progress.stage("races", 1 + one_thread) as advance:
                found = task.race([contender.name for contender in present], {})
                result.split = found.get("split", {})
                _fill(present, found, "speed", progress)
                advance(1)
                if one_thread:
                    slow = {peer.name for peer in peers if peer.most is not None}
                    quick = [c for c in present if c.present and c.name not in slow]
                    found = task.race([contender.name for contender in quick], _BY_ONE_THREAD)
                    _fill(quick, found, "one_thread", progress)
                    advance(1)
    return result


class _Tasks:
    """Runs tasks in processes of their own."""

    def __init__(
        self,
        setting: Setting,
        folder: Path,
        texts: Sequence[str],
        warm: Sequence[str],
        rounds: int,
    ) -> None:
        self._folder, self._texts, self._warm = folder, list(texts), list(warm)
        self._common: dict[str, Any] = {
            "setting": asdict(setting),
            "folder": str(folder / "peers"),
            "sizes": list(SIZES),
            "rounds": rounds,
        }

    def prepare(self, name: str) -> dict[str, Any]:
        """Let one write what it will open."""
        return self._run({"task": "prepare", "names": [name]}, {})

    def alone(self, name: str) -> dict[str, Any]:
        """Measure one."""
        return self._run({"task": "alone", "names": [name], "texts": self._texts}, {})

    def race(self, names: list[str], environment: Mapping[str, str]) -> dict[str, Any]:
        """Let all take turns."""
        job = {"task": "race", "names": names, "texts": self._texts, "warm": self._warm}
        return self._run(job, environment)

    def _run(self, job: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
        job_file, result_file = self._folder / "job.json", self._folder / "result.json"
        job_file.write_text(json.dumps({**self._common, **job}), encoding="utf-8")
        result_file.unlink(missing_ok=True)
        module = "steelyard.eval.bench.peers.process"
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", module, str(job_file), str(result_file)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env={**os.environ, **environment},
        )
        if not result_file.is_file():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
            return {"failed": f"its process ended with {done.returncode}: {last}"}
        result: dict[str, Any] = json.loads(result_file.read_text(encoding="utf-8"))
        return result


def _alone(task: _Tasks, contender: Contender, starts: int) -> None:
    """Fill in what a process of its own shows."""
    found = task.prepare(contender.name)
    contender.disk_bytes = found.get("disk_bytes")
    seconds: list[float] = []
    for _ in range(starts + 1 if starts else 0):  # the first fills the file cache
        if "failed" in found or "missing" in found:
            break
        found = task.alone(contender.name)
        seconds.append(found.get("start_seconds", 0.0))
        contender.peak_bytes = max(contender.peak_bytes or 0, found.get("peak_bytes") or 0) or None
        contender.bare_peak_bytes = found.get("bare_peak_bytes")
    if "failed" in found or "missing" in found:
        contender.failed, contender.missing = found.get("failed"), found.get("missing")
        return
    if starts:
        contender.start_seconds, contender.starts = statistics.median(seconds[1:]), starts


def _fill(
    contenders: Sequence[Contender], found: dict[str, Any], where: str, progress: Progress
) -> None:
    """Put a race's figures where they belong."""
    for contender in contenders:
        one = found.get("contenders", {}).get(contender.name, found)
        if "speed" not in one and where == "one_thread":  # the other figures stand
            why = one.get("failed") or f"no {one.get('missing')}"
            progress.say(f"{contender.name}: failed by one thread: {why}")
            continue
        if "speed" not in one:
            contender.missing = one.get("missing")
            contender.failed = one.get("failed")
            _tell(progress, contender)
            continue
        speeds = {int(size): Speed(**speed) for size, speed in one["speed"].items()}
        setattr(contender, where, speeds)
        contender.facts = one["facts"]
        contender.dims, contender.difference = one.get("dims"), one.get("difference")


def _tell(progress: Progress, contender: Contender) -> None:
    if contender.missing is not None:
        progress.say(
            f"{contender.name}: left out, {contender.missing} is not installed: "
            f"{contender.install}"
        )
    elif contender.failed is not None:
        progress.say(f"{contender.name}: failed: {contender.failed}")


def _machine() -> dict[str, str]:
    """Processor, cores, versions of what was compared."""
    found = {"processor": str(machine()["processor"]), "system": platform.platform()}
    found["python"] = platform.python_version()
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
