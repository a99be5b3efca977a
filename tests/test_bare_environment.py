"""The query side in a real virtual environment that holds its four packages and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Small

SCRIPT = """
import json, sys, time
started = time.perf_counter()
import steelyard
imported = time.perf_counter() - started
from steelyard import QueryEncoder
encoder = QueryEncoder.load(sys.argv[1])
encoded = encoder.encode_query(["heart attack", ""])
heavy = ("torch", "transformers", "pymilvus", "pyarrow", "pydantic", "typer", "rich")
installed = []
for name in heavy:
    try:
        __import__(name)
        installed.append(name)
    except ModuleNotFoundError:
        pass
print(json.dumps({
    "import_seconds": imported,
    "ready_seconds": time.perf_counter() - started,
    "dims": encoded.dense.shape[1],
    "first": encoded.dense[0].tolist(),
    "empty": encoded.empty.tolist(),
    "installed": installed,
}))
"""


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "-q", str(ROOT)], check=True)
    return python


def test_the_query_side_needs_four_packages(
    bare_python: Path, small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [str(bare_python), str(script), str(small.pack)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    result = json.loads(done.stdout)
    assert result["installed"] == []
    assert result["empty"] == [False, True]
    expected = small.encoder.encode_query(["heart attack"]).dense[0]
    assert result["first"] == pytest.approx(expected.tolist(), abs=1e-6)
    with capsys.disabled():
        print(
            f" [import steelyard: {result['import_seconds']:.3f} s; imported, pack loaded and "
            f"two queries encoded: {result['ready_seconds']:.3f} s]",
            end="",
        )


def test_what_is_missing_is_named_with_its_install_line(bare_python: Path, small: Small) -> None:
    steelyard = bare_python.parent / "steelyard"
    done = subprocess.run(
        [str(steelyard), "pack", "inspect", str(small.pack)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5
    assert 'pip install "steelyard[cli]"' in done.stderr
    assert "Traceback" not in done.stderr
    for url, extra in (
        ("milvus-lite:x.db?name=demo", "milvus"),
        ("opensearch://localhost/demo", "opensearch"),
    ):
        code = (
            "from steelyard import SteelyardError\n"
            "from steelyard.plugin.urls import open_engine\n"
            "try:\n"
            f"    open_engine({url!r})\n"
            "except SteelyardError as error:\n"
            "    print(error.hint)\n"
        )
        done = subprocess.run(
            [str(bare_python), "-c", code], capture_output=True, text=True, check=False
        )
        assert done.stdout.strip() == f'pip install "steelyard[{extra}]"', done.stderr


def test_the_query_images_program(bare_python: Path, small: Small) -> None:
    program = ROOT / "docker" / "encode_lines.py"
    done = subprocess.run(
        [str(bare_python), str(program), str(small.pack)],
        input="heart attack\n\n",
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert {"heart", "attack"} == set(first["sparse"])
    assert second["empty"] is True
