"""``steelyard dev``: a local server for trying things out."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from steelyard.cli.output import RichProgress, console, status

app = typer.Typer(
    help="Start a local search engine for trying things out; Ctrl-C stops it.",
    no_args_is_help=True,
)

INTERRUPTED = 130
_LOOK_SECONDS = 0.5

DataOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Keeps the data between runs; default: a temporary one."),
]
JsonFlag = Annotated[
    bool, typer.Option("--json", help="When it is up, print one line of JSON: url, pid.")
]


@app.command()
def opensearch(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 is any free one.")] = 9200,
    data: DataOption = None,
    ml: Annotated[bool, typer.Option("--ml/--no-ml", help="With ML Commons.")] = True,
    json: JsonFlag = False,
) -> None:
    """An OpenSearch node with k-NN and neural-search, laid out from Maven artefacts."""
    from steelyard.local_servers.opensearch_node import local_node

    with (
        _until_stopped() as serve,
        local_node(ml=ml, port=port, data=data, progress=RichProgress()) as node,
    ):
        _announce(f"opensearch://localhost:{node.url.rsplit(':', 1)[1]}/demo", data, json)
        serve(node.check)


@app.command()
def milvus(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 is any free one.")] = 19530,
    data: DataOption = None,
    json: JsonFlag = False,
) -> None:
    """A Milvus server, out of the Python package milvus."""
    from steelyard.local_servers.errors import ServerError
    from steelyard.local_servers.folders import data_folder, work_folder
    from steelyard.local_servers.milvus import (
        milvus_process,
    )
    from steelyard.local_servers.processes import check_port, has_ended

    check_port(port)
    place = data_folder(data, "milvus", as_nobody=False) if data else work_folder("milvus")
    with _until_stopped() as serve, place as (folder, lock):
        status.print("  starting Milvus", markup=False)
        with milvus_process(folder, port=port, locks=[lock]) as server:
            _announce(f"milvus://localhost:{server.address.rsplit(':', 1)[1]}/demo", data, json)

            def check() -> None:
                if has_ended(server.pid):
                    said = server.log.read_text(encoding="utf-8", errors="replace")
                    raise ServerError(f"Milvus has ended; the end of its log:\n{said[-6000:]}")

            serve(check)


@contextmanager
def _until_stopped() -> Iterator[Callable[[Callable[[], None]], NoReturn]]:
    """Ctrl-C, SIGTERM and a closed terminal stop the server, then end the command.

    Before the server is up that is exit code 130, afterwards 0.

    Yields:
        What to call when it is up: waits, and calls what it is given now and then.
    """
    up = False

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        del number, frame
        raise KeyboardInterrupt

    def serve(check: Callable[[], None]) -> NoReturn:
        nonlocal up
        up = True
        while True:
            check()
            time.sleep(_LOOK_SECONDS)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] != signal.SIG_IGN:  # nohup
            signal.signal(number, interrupt)
    try:
        yield serve
    except KeyboardInterrupt:
        status.print("  stopped")
        if not up:
            raise typer.Exit(INTERRUPTED) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _announce(url: str, data: Path | None, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"url": url, "pid": os.getpid()}))
        return
    kept = f"kept in {data}" if data else "temporary: gone when the server stops"
    console.print(
        f"It is up. The engine's URL, for --to:\n\n  {url}\n\nIts data is {kept}. "
        "Ctrl-C stops it.",
        markup=False,
        soft_wrap=True,
    )
