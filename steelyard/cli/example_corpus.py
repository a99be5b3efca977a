"""The collection that comes with a checkout."""

from __future__ import annotations

from pathlib import Path

from steelyard.errors import InputError


def example_corpus() -> Path:
    """``examples/scifact`` of the checkout that this package runs from.

    Raises:
        InputError: the package was installed without its checkout.
    """
    folder = Path(__file__).resolve().parents[2] / "examples" / "scifact"
    if not folder.is_dir():
        raise InputError(
            "the example collection is not installed with the package",
            "run from a checkout, or name a BEIR folder of your own",
        )
    return folder
