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
from typing import Annotated

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
    from steelyard.local_servers.opensearch_parts import VERSION

    with _until_stopped() as up:
        status.print("starting OpenSearch ...")
        with local_node(ml=ml, port=port, data=data, progress=RichProgress()) as node:
            url = f"opensearch://localhost:{node.url.rsplit(':', 1)[1]}/demo"
            up(f"OpenSearch {VERSION}", url, data, json, node.check)


@contextmanager
def _until_stopped() -> Iterator[Callable[..., None]]:
    """Ctrl-C, SIGTERM and a closed terminal stop the server, then end the command.

    Before the server is up that is exit code 130, afterwards 0.
    """
    was_up = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    def up(
        name: str, url: str, data: Path | None, as_json: bool, check: Callable[[], None]
    ) -> None:
        nonlocal was_up
        was_up = True
        _announce(name, url, data, as_json)
        while True:
            check()
            time.sleep(_LOOK_SECONDS)

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield up
    except KeyboardInterrupt:
        status.print("stopped")
        if not was_up:
            raise typer.Exit(INTERRUPTED) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _announce(name: str, url: str, data: Path | None, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"url": url, "pid": os.getpid()}))
        return
    console.print(f"{name} is up. The engine's URL, for --to:\n\n  {url}\n", markup=False)
    kept = f"kept in {data}" if data else "temporary: it is gone when the server stops"
    console.print(f"Its data is {kept}. Ctrl-C stops it.", markup=False, soft_wrap=True)
