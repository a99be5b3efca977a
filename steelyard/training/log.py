"""What a run tells: a JSON line a step, and TensorBoard where it is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from steelyard.encoders.whole_file import whole_file
from steelyard.errors import needs_extra

LOG = "log.jsonl"
TENSORBOARD = "tensorboard"


class TrainingLog:
    """Writes ``log.jsonl``; lines of steps that will be done again are dropped.

    Args:
        folder: of the run.
        steps_done: of the checkpoint that the run goes on from.
        tensorboard: also write TensorBoard's files, to ``tensorboard/``.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, steps_done: int = 0, *, tensorboard: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / LOG
        kept = [line for line in read_log(folder) if line["step"] < steps_done]
        with whole_file(path) as stream:
            stream.write("".join(json.dumps(line) + "\n" for line in kept).encode())
        self._stream = path.open("a", encoding="utf-8")
        self._board = None
        if tensorboard:
            with needs_extra("tensorboard"):
                from torch.utils.tensorboard import SummaryWriter
            self._board = SummaryWriter(str(folder / TENSORBOARD), purge_step=steps_done)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """One step's line; nested values become ``name/part`` in TensorBoard."""
        self._stream.write(json.dumps({"step": step, **values}) + "\n")
        self._stream.flush()
        if self._board is not None:
            for name, value in values.items():
                for part, number in value.items() if isinstance(value, dict) else [("", value)]:
                    self._board.add_scalar(f"{name}/{part}" if part else name, number, step)

    def close(self) -> None:
        """Flush."""
        self._stream.close()
        if self._board is not None:
            self._board.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; a last line that was cut short is left out."""
    path = folder / LOG
    if not path.is_file():
        return []
    found: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found
