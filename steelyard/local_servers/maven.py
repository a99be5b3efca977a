"""Fetches Maven artefacts into folders."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from xml.sax.saxutils import escape

from steelyard.local_servers.errors import MissingProgramError, ServerError
from steelyard.local_servers.java import find_java
from steelyard.local_servers.opensearch_parts import Part
from steelyard.local_servers.processes import dies_with_us, stop
from steelyard.progress import Progress

_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_SECONDS = 1800.0
_TOLD = 3
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def fetch(folder: Path, parts: Sequence[Part], name: str, progress: Progress) -> None:
    """Copy each part's files to ``fetched(folder, part)``, in one run of Maven.

    Args:
        folder: new; holds the files and what Maven needs.
        parts: what to fetch.
        name: of it all, for messages.
        progress: is told of each part.

    Raises:
        MissingProgramError: there is no mvn.
        ServerError: mvn fails; the first of its errors.
    """
    mvn = shutil.which("mvn")
    if mvn is None:
        raise MissingProgramError(
            f"{name} is laid out with Maven, and there is no mvn on the path",
            "install it: apt install maven, or brew install maven",
        )
    for part in parts:
        (folder / part.name).mkdir(parents=True)
        _pom(folder / part.name, "".join(_dependency(a, part.alone) for a in part.artefacts))
    modules = "".join(f"<module>{escape(part.name)}</module>" for part in parts)
    _pom(folder, f"<modules>{modules}</modules>", inner=False)
    with (
        progress.stage(f"fetch the parts of {name}", len(parts)) as advance,
        tempfile.TemporaryFile() as output,
    ):
        process = subprocess.Popen(  # noqa: S603  (a list, never a shell)
            dies_with_us(
                [mvn, "-B", "-q", "-f", str(folder / "pom.xml"), _COPY, "-DincludeScope=runtime"],
                signal="KILL",
            ),
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            ended = _watch(process, [fetched(folder, part) for part in parts], advance)
        finally:
            stop(process, seconds=5)
        if ended != 0:
            output.seek(0)
            said = output.read().decode("utf-8", "replace")
            raise ServerError(
                f"Maven could not fetch {name}: {_errors(said)}",
                "check the network, and the mirrors and proxies in ~/.m2/settings.xml",
            )


def fetched(folder: Path, part: Part) -> Path:
    """The folder of a part's files."""
    return folder / part.name / "target" / "dependency"


def _watch(
    process: subprocess.Popen[bytes], folders: list[Path], advance: Callable[[int], None]
) -> int | None:
    """Tell of the folders that appear, until Maven ends; None when it takes too long."""
    deadline = time.monotonic() + _SECONDS
    waiting = set(folders)
    while time.monotonic() < deadline:
        try:
            ended: int | None = process.wait(0.5)
        except subprocess.TimeoutExpired:
            ended = None
        there = {path for path in waiting if path.is_dir()}
        waiting -= there
        advance(len(there))
        if ended is not None:
            return ended
    return None


def _environment() -> dict[str, str]:
    """Ours; with a Java for Maven where it would find none."""
    values = dict(os.environ)
    if not shutil.which("java") and "JAVA_HOME" not in values:
        values["JAVA_HOME"] = str(find_java().parents[1])
    return values


def _errors(said: str) -> str:
    """Maven's errors without its advice, or its last lines."""
    lines = [_COLOURS.sub("", line).strip() for line in said.splitlines()]
    errors = [line.removeprefix("[ERROR]").strip() for line in lines if line.startswith("[ERROR]")]
    first = list(takewhile(bool, errors)) or [line for line in lines if line][-_TOLD:]
    return " ".join(first[:_TOLD])[:1000] or f"it took more than {_SECONDS:.0f} s"


def _pom(folder: Path, content: str, *, inner: bool = True) -> None:
    name = re.sub(r"\W+", "-", folder.name) if inner else "all"
    if inner:
        content = f"<dependencies>{content}</dependencies>"
    (folder / "pom.xml").write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>steelyard.servers</groupId>"
        f"<artifactId>{name}</artifactId><version>1</version><packaging>pom</packaging>"
        f"{content}</project>\n",
        encoding="utf-8",
    )


def _dependency(artefact: str, alone: bool) -> str:
    tags = ("groupId", "artifactId", "version", "type", "classifier")
    values = zip(tags, artefact.split(":"), strict=False)
    inside = "".join(f"<{tag}>{escape(value)}</{tag}>" for tag, value in values)
    if alone:
        anything = "<groupId>*</groupId><artifactId>*</artifactId>"
        inside += f"<exclusions><exclusion>{anything}</exclusion></exclusions>"
    return f"<dependency>{inside}</dependency>"
