"""A job for tests of what an operator sees: run as a program, it does as its arguments say."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated
from unittest.mock import patch

import typer

from steelyard.cli.options import (
    FailOnRejectedOption,
    LogFormatOption,
    LogLevelOption,
    MetricsOption,
    ProgressOption,
    PushGatewayOption,
)
from steelyard.cli.output import JsonOption
from steelyard.cli.watching import watched
from steelyard.errors import InputError, TransientEngineError
from steelyard.progress import Progress


def work(progress: Progress, folder: Path, end: Callable[[], None]) -> None:
    """Four documents read, one of them rejected, three indexed; then ``end``."""
    progress.fact("alias", "nightly", sink="milvus-lite/nightly")
    progress.fact("generation", "nightly_2026_ab", sink="milvus-lite/nightly")
    folder.mkdir(parents=True, exist_ok=True)
    progress.fact("shards", str(folder))
    with progress.stage("encode documents", 4) as encoded:
        progress.count("documents", 4, stage="read")
        progress.count("documents", 1, stage="rejected", reason="duplicate id, first on line 2")
        progress.count("documents", 3, stage="encoded")
        encoded(4)
        with progress.stage("load documents", 3) as loaded:
            progress.count("retries", 2, sink="milvus-lite/nightly")
            progress.count("documents", 3, stage="indexed", sink="milvus-lite/nightly")
            progress.fact("count", 3, sink="milvus-lite/nightly")
            loaded(3)
            end()
    progress.say("look at opensearch://admin:hunter22@host:9200/nightly")


def run(
    folder: Path,
    end: Annotated[str, typer.Option()] = "done",
    progress: ProgressOption = "auto",
    metrics: MetricsOption = None,
    push_gateway: PushGatewayOption = None,
    log_format: LogFormatOption = None,
    log_level: LogLevelOption = "info",
    fail_on_rejected: FailOnRejectedOption = False,
    json: JsonOption = None,
    api_token: Annotated[str, typer.Option()] = "",
) -> None:
    """A watched job."""
    logging.disable(logging.ERROR)  # as the command line has it

    def ends() -> None:
        if end == "wait":
            (folder / "waiting").touch()
            while True:
                time.sleep(0.05)
        if end == "busy":
            raise TransientEngineError("the server is busy", "later")
        if end == "bad":
            raise InputError("a bad line with password=hunter22", "mend it")
        if end == "bug":
            raise ZeroDivisionError
        logging.getLogger("pymilvus").error("a foreign error")
        logging.getLogger("steelyard.search").warning("ours, with token=hunter22")

    with watched(
        "index",
        progress=progress,
        metrics=metrics,
        push_gateway=push_gateway,
        log_format=log_format,
        log_level=log_level,
        fail_on_rejected=fail_on_rejected,
        json=json,
    ) as job:
        work(job, folder, ends)
        job.result["answer"] = 42


def main() -> None:
    """As ``steelyard`` runs its commands."""
    from steelyard.cli import main as steelyard

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(run)
    with patch("steelyard.cli.app.app", app):
        steelyard()


if __name__ == "__main__":
    main()
