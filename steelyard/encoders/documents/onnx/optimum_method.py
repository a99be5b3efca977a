"""Export method ``optimum``: Hugging Face's exporter, which pins an older transformers.

So it runs as a program of its own, in an environment of its own in the cache.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from steelyard.config import cache_dir
from steelyard.encoders.documents.onnx.folder import MODEL
from steelyard.encoders.folder_lock import locked_file
from steelyard.errors import InputError, SteelyardError

OPTIMUM = "optimum-onnx[onnxruntime]==0.1.0"
SUBPROCESS_SECONDS = 1800


def export_with_optimum(folder: Path, pooling: str, out: Path, opset: int) -> dict[str, Any]:
    """Export a model's folder to ``out``; returns what ``steelyard_tower.json`` records."""
    if pooling == "model":
        raise InputError("optimum gives token states only", "use --method torch for this model")
    python = optimum_environment()
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".optimum.") as made:
        arguments = ["--model", str(folder), "--task", "feature-extraction"]
        arguments += ["--library-name", "transformers", "--opset", str(opset), made]
        run_program([python, "-m", "optimum.exporters.onnx", *arguments])
        for file in Path(made).glob(f"{MODEL}*"):
            shutil.move(file, out / file.name)
    return {"method": "optimum", "package": OPTIMUM, "opset": opset}


def optimum_environment() -> str:
    """The interpreter of an environment with optimum in it, made on first use (about 6 GB)."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    name = f"{OPTIMUM.replace('[onnxruntime]==', '-')}-py{version}"
    return environment(cache_dir() / "environments" / name, OPTIMUM)


def environment(place: Path, requirement: str) -> str:
    """The interpreter of a virtual environment at ``place``, made if it is not there.

    It takes its name when it is whole. A second caller waits until the first has made it. Only
    ``python -m`` runs in it: the scripts in its ``bin`` name the folder that it was made in.
    """
    python = place / "bin" / "python"
    if not python.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        with locked_file(place.with_name(f"{place.name}.lock"), wait=True):
            if not python.is_file():
                _make_environment(place, requirement)
    return str(python)


def _make_environment(place: Path, requirement: str) -> None:
    begun = f".{place.name}."
    for left in place.parent.glob(f"{begun}*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=begun, dir=place.parent) as made:
        new = Path(made) / place.name
        python = str(new / "bin" / "python")
        run_program([sys.executable, "-m", "venv", str(new)])
        run_program([python, "-m", "pip", "install", "-q", requirement])
        shutil.rmtree(place, ignore_errors=True)  # one whose interpreter is gone
        new.rename(place)


def run_program(arguments: list[str]) -> None:
    """Run a program to its end; what it says is kept for the error."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    kept["HF_HUB_OFFLINE"] = "1"
    what, limit = " ".join(arguments[1:3]), SUBPROCESS_SECONDS
    try:
        done = subprocess.run(  # noqa: S603  (a list, never a shell)
            arguments, capture_output=True, text=True, timeout=limit, check=False, env=kept
        )
    except subprocess.TimeoutExpired as error:
        raise SteelyardError(f"{what} took over {limit} s", "use --method torch") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        message = f"python {what} failed with exit code {done.returncode}: {last:.200}"
        raise SteelyardError(message, "use --method torch")
