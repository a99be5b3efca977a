"""``python -m steelyard.eval.bench.peers.process JOB RESULT``: one task in a process of its own.

JOB is a JSON file; RESULT is written, also where the task fails.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from steelyard.eval.bench.peers.alone import measure_alone
from steelyard.eval.bench.peers.contenders import PEERS
from steelyard.eval.bench.peers.peer import Setting
from steelyard.eval.bench.peers.trouble import trouble


def main(job_file: Path, result_file: Path) -> None:
    """Do the task."""
    job = json.loads(job_file.read_text(encoding="utf-8"))
    try:
        result = _do(job)
    except Exception as error:  # the others go on
        result = dict(trouble(error))
    result_file.write_text(json.dumps(result), encoding="utf-8")


def _do(job: dict[str, Any]) -> dict[str, Any]:
    setting, folder = Setting(**job["setting"]), Path(job["folder"])
    if job["task"] == "race":
        from steelyard.eval.bench.peers.turns import (
            race,
        )  # NumPy and more, which others do not need

        peers = [PEERS[name] for name in job["names"]]
        return race(peers, setting, folder, job["texts"], job["warm"], job["sizes"], job["rounds"])
    peer = PEERS[job["names"][0]]
    place = folder / peer.name
    if job["task"] == "prepare":
        place.mkdir(parents=True)
        return {"disk_bytes": peer.prepare(setting, place)}
    return measure_alone(peer, setting, place, job["texts"], max(job["sizes"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
