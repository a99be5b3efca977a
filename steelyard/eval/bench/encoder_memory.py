"""Memory and start-up of a process that encodes queries: by look-up, or with the full model.

Measured in a process of its own, which imports only what such a service needs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from steelyard.errors import SteelyardError

LOOKUP, FULL = "lookup", "full"
_STATUS = Path("/proc/self/status")


def encoder_memory(
    pack: Path,
    kind: str,
    texts: Sequence[str],
    *,
    model: str | None = None,
    precision: str = "auto",
) -> dict[str, float | None]:
    """What a process holds once it has encoded these queries one by one.

    Args:
        pack: folder of the query pack.
        kind: ``lookup`` or ``full``.
        texts: queries.
        model: where the full model is now, if it has moved.
        precision: of the full model.

    Returns:
        ``resident_mb`` (10**6 bytes, mapped files included), ``private_mb`` (without them); None
        where the system does not say. ``first_query_seconds``: from before the imports to the
        first query's vectors.
    """
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", __name__, str(pack), kind, precision, model or ""],
        input=json.dumps(list(texts)),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    if done.returncode:
        said = (done.stderr.strip() or "nothing").splitlines()[-1]
        raise SteelyardError(
            f"the process that encodes ended with {done.returncode}; it said: {said}",
            "leave memory out with --no-memory",
        )
    found: dict[str, float | None] = json.loads(done.stdout.splitlines()[-1])
    return found


def _main(pack: str, kind: str, precision: str, moved: str) -> None:
    texts = json.load(sys.stdin)
    started = time.perf_counter()
    from steelyard.encoders.query.encoder import QueryEncoder

    encoder = QueryEncoder.load(pack)
    if kind == FULL:
        from steelyard.encoders.documents.from_pack import open_dense_encoder
        from steelyard.eval.bench.full_model_queries import FullModelQueries

        model = open_dense_encoder(encoder.metadata, model=moved or None, precision=precision)
        encoder = FullModelQueries(Path(pack), model)
    encoder.encode_query(texts[0])
    first = time.perf_counter() - started
    for text in texts[1:]:
        encoder.encode_query(text)
    held = {"resident_mb": _megabytes("VmRSS"), "private_mb": _megabytes("RssAnon")}
    print(json.dumps({**held, "first_query_seconds": round(first, 2)}))


def _megabytes(name: str) -> float | None:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kilobytes = next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
    return round(kilobytes * 1024 / 1e6, 1)


if __name__ == "__main__":
    _main(*sys.argv[1:])
