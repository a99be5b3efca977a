"""The house rules that a machine can check: types, style, layers, and what may not be there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

LAYERS = ["cli", "eval", "training", "indexer", "plugin", "local_servers", "encoders"]
"""From the top down; a layer imports from itself and from those below it."""


def sources() -> list[Path]:
    return [*(ROOT / "steelyard").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]


def tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_mypy_checks_every_file_there_is() -> None:
    done = tool("mypy")
    assert done.returncode == 0, done.stdout
    found = re.search(r"no issues found in (\d+) source files", done.stdout)
    assert found is not None, done.stdout
    assert int(found.group(1)) == len(sources())


def test_ruff_has_nothing_to_say() -> None:
    for command in (["check"], ["format", "--check"]):
        done = tool("ruff", *command, "steelyard", "tests")
        assert done.returncode == 0, done.stdout + done.stderr


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found


def test_imports_point_one_way() -> None:
    for position, layer in enumerate(LAYERS):
        for path in (ROOT / "steelyard" / layer).rglob("*.py"):
            for module in imports(path):
                parts = module.split(".")
                if parts[0] == "steelyard" and len(parts) > 1 and parts[1] in LAYERS:
                    assert LAYERS.index(parts[1]) >= position, f"{path} imports {module}"


def test_the_vocabulary_imports_no_layer() -> None:
    for name in ("types", "errors", "config", "progress"):
        for module in imports(ROOT / "steelyard" / f"{name}.py"):
            assert not any(module.startswith(f"steelyard.{layer}") for layer in LAYERS)


def test_no_pickle_eval_or_shell() -> None:
    for path in (ROOT / "steelyard").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not imports(path) & {"pickle", "marshal", "shelve", "dill"}, path
        assert not re.search(r"(?<![.\w])(eval|exec)\(|shell=True", text), path


def test_modules_stay_small() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / "steelyard").rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert not long


def test_the_four_doors_are_at_the_top() -> None:
    for door in ("plugin", "encoders", "indexer", "eval"):
        link = ROOT / door
        assert link.is_symlink()
        assert link.resolve() == ROOT / "steelyard" / door
