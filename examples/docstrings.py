"""A judged collection of 800 docstrings: ``python examples/docstrings.py OUT``.

A document is a docstring of this Python's standard library (PSF licence) without its first
paragraph, which is the query of 300 of them. Meant to choose settings on: see
docs/look-up-distillation.md, whose figures are from Python 3.11.7.
"""

from __future__ import annotations

import ast
import gzip
import json
import random
import sys
import sysconfig
from pathlib import Path

LEFT_OUT = {"site-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings(library: Path) -> list[tuple[str, str]]:
    """First paragraph and rest of every docstring that has both."""
    found: dict[str, str] = {}
    for file in sorted(library.rglob("*.py")):
        if LEFT_OUT & set(file.relative_to(library).parts):
            continue
        try:
            tree = ast.parse(file.read_text("utf-8"))
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ):
                first, _, rest = (ast.get_docstring(node) or "").partition("\n\n")
                first, rest = " ".join(first.split()), " ".join(rest.split())
                if 4 <= len(first.split()) <= 25 and len(rest.split()) >= 12:
                    found.setdefault(rest, first)
    return [(first, rest) for rest, first in found.items()]


def main(out: Path) -> None:
    """Write corpus, queries and judgements in BEIR's layout."""
    items = docstrings(Path(sysconfig.get_paths()["stdlib"]))
    asked = random.Random(0).sample(range(len(items)), 600)  # noqa: S311
    rng = random.Random(1)  # noqa: S311
    asked = rng.sample(sorted(asked), 300)
    others = sorted(set(range(len(items))) - set(asked))
    kept = sorted({*asked, *rng.sample(others, 500)})
    (out / "qrels").mkdir(parents=True, exist_ok=True)
    with gzip.open(out / "corpus.jsonl.gz", "wt", encoding="utf-8") as stream:
        for i in kept:
            stream.write(json.dumps({"_id": str(i), "title": "", "text": items[i][1]}) + "\n")
    lines = [json.dumps({"_id": f"q{i}", "text": items[i][0]}) for i in asked]
    (out / "queries.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    judged = ["query-id\tcorpus-id\tscore", *(f"q{i}\t{i}\t1" for i in asked)]
    (out / "qrels" / "train.tsv").write_text("\n".join(judged) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
