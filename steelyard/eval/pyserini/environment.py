"""What Pyserini 1.6 wants of a process before it is imported."""

from __future__ import annotations

import os

KEY = "OPENAI_API_KEY"


def prepare_pyserini() -> None:
    """Start Java for Pyserini in this process, and let it be imported.

    A Java of 21 or newer is found wherever it lies, not in JAVA_HOME only. Pyserini makes a
    client of OpenAI's when it is imported, which wants a key, whatever it says.

    Raises:
        MissingExtraError: Pyserini is not installed.
        MissingProgramError: there is no Java of 21 or newer.
    """
    from steelyard.plugin.lucene.jvm import start_jvm

    start_jvm()
    os.environ.setdefault(KEY, "none")
