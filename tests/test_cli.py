"""The command line as a user calls it: the lines of the README, and bad input."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from steelyard.eval.results import read_result
from tests.conftest import MODEL, Small, scifact_lines, write_jsonl

BIN = Path(sys.executable).parent / "steelyard"


def run(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "120", **(env or {})},
    )


def ok(*arguments: object) -> str:
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fails(code: int, message: str, *arguments: object) -> str:
    done = run(*arguments)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr + done.stdout
    assert message in " ".join(done.stderr.split())
    return done.stderr


@pytest.fixture(scope="module")
def index_url(small: Small, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The small collection, indexed by the command line itself."""
    folder = tmp_path_factory.mktemp("cli")
    url = f"milvus-lite://{folder / 'file.db'}?name=demo"
    report = folder / "index.json"
    output = ok("index", small.corpus, "--pack", small.pack, "--to", url, "--json", report)
    result = json.loads(report.read_text(encoding="utf-8"))
    assert (result["read"], result["indexed"], result["rejected"]) == (120, 120, 0)
    assert result["generation"] in output
    return url


@pytest.fixture(scope="module")
def other_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of other documents, distilled by the command line."""
    folder = tmp_path_factory.mktemp("other")
    corpus = write_jsonl(folder / "corpus.jsonl", scifact_lines(40))
    pack, report = folder / "pack", folder / "report.json"
    ok("pack", "distill", corpus, "--model", MODEL, "--out", pack, "--seed", 0,
       "--pseudo-queries", 180, "--epochs", 1, "--shards", folder / "shards",
       "--json", report)  # fmt: skip
    made = json.loads(report.read_text(encoding="utf-8"))
    assert made["provenance"]["recipe"]["seed"] == 0
    return pack


def test_a_pack_is_verified_and_inspected(other_pack: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    assert "all-minilm" in ok("pack", "inspect", other_pack, "--json", report)
    pack_id = json.loads(report.read_text(encoding="utf-8"))["pack_id"]
    assert pack_id in ok("pack", "verify", other_pack)
    copy = tmp_path / "copy"
    shutil.copytree(other_pack, copy)
    arguments = ["pack", "distill", tmp_path, "--model", MODEL, "--out", copy]
    write_jsonl(tmp_path / "corpus.jsonl", scifact_lines(3))
    fails(2, "already holds a query pack", *arguments)
    table = copy / "dense.safetensors"
    table.write_bytes(table.read_bytes()[:-1])
    fails(3, "pack.json says", "pack", "verify", copy)


def test_indexing_again_changes_nothing(small: Small, index_url: str, tmp_path: Path) -> None:
    report = tmp_path / "again.json"
    ok("index", small.corpus, "--pack", small.pack, "--to", index_url, "--json", report)
    assert json.loads(report.read_text(encoding="utf-8"))["reused"] is True


def test_encode_writes_parquet(small: Small, tmp_path: Path) -> None:
    values = [{"_id": "a", "text": "heart attack"}, {"_id": "b", "text": ""}, {"no": "query"}]
    queries = write_jsonl(tmp_path / "queries.jsonl", values)
    out = tmp_path / "deep" / "queries.parquet"
    output = ok("encode", queries, "--pack", small.pack, "--out", out)
    assert "line 3: missing id" in output
    table = pq.read_table(out)
    assert table.column_names == ["id", "dense", "sparse_ids", "sparse_weights"]
    assert table.column("id").to_pylist() == ["a", "b"]
    encoded = small.encoder.encode_query(["heart attack", ""])
    assert table.column("dense").to_pylist() == encoded.dense.tolist()
    ids, weights = encoded.sparse.row(0)
    assert table.column("sparse_ids").to_pylist() == [ids.tolist(), []]
    assert table.column("sparse_weights").to_pylist() == [weights.tolist(), []]


def test_search_finds_and_explains(small: Small, index_url: str, tmp_path: Path) -> None:
    title = scifact_lines(3)[2]["title"]
    report = tmp_path / "hits.json"
    arguments = ["search", title, "--pack", small.pack, "--to", index_url, "--k", 10]
    output = ok(*arguments, "--feedback", 3, "--json", report)
    answer = json.loads(report.read_text(encoding="utf-8"))
    assert len(answer["hits"]) == 10
    assert answer["hits"][0]["document"]["title"] == title
    assert answer["hits"][0]["dense"]["rank"] == 1
    assert title in output
    assert (
        "no token of this query is known"
        in run("search", "🙂", "--pack", small.pack, "--to", index_url).stderr
    )
    assert len(ok("search", title, "--pack", small.pack, "--to", index_url, "--fusion", "rrf"))
    ok(*arguments, "--group-by-parent", "--json", tmp_path / "grouped.json")
    grouped = json.loads((tmp_path / "grouped.json").read_text())["hits"]
    assert len(grouped) == 10
    assert all(hit["parent_id"] == hit["id"] for hit in grouped)


def test_eval_writes_table_json_and_runs(small: Small, index_url: str, tmp_path: Path) -> None:
    report, runs = tmp_path / "eval.json", tmp_path / "runs"
    systems = "full,lookup,bm25,full+bm25,lookup+bm25,lookup+bm25+feedback"
    arguments = ["eval", small.corpus, "--pack", small.pack, "--to", index_url]
    output = ok(*arguments, "--systems", systems, "--json", report, "--runs", runs)
    (result,) = json.loads(report.read_text(encoding="utf-8"))["collections"]
    rows = result["rows"]
    assert [row["system"] for row in rows] == systems.split(",")
    assert all({"ndcg@10", "recall@100", "encode_qps"} <= set(row) for row in rows)
    assert sorted(p.stem for p in runs.iterdir()) == sorted(systems.split(","))
    assert "lookup+bm25+feedback" in output
    own = tmp_path / "engine.json"
    ok(*arguments, "--systems", "lookup+bm25", "--search", "engine", "--candidates", 100,
       "--json", own)  # fmt: skip
    exact = tmp_path / "exact.json"
    ok(*arguments, "--systems", "lookup+bm25", "--candidates", 100, "--json", exact)
    a, b = (read_result(p).collections[0].rows[0].means for p in (own, exact))
    assert a["ndcg@10"] == pytest.approx(b["ndcg@10"], abs=1e-3)


def test_another_packs_documents_are_refused(
    small: Small, other_pack: Path, index_url: str, tmp_path: Path
) -> None:
    error = fails(3, "sparse space", "search", "x", "--pack", other_pack, "--to", index_url)
    assert small.made.metadata.spaces.sparse in " ".join(error.split())
    converted = tmp_path / "int8"
    ok("pack", "convert", small.pack, "--dtype", "int8", "--out", converted)
    ok("search", "heart", "--pack", converted, "--to", index_url)


def test_bad_input_is_one_line_and_an_exit_code(
    small: Small, index_url: str, tmp_path: Path
) -> None:
    pack, to = ["--pack", small.pack], ["--to", index_url]
    nowhere = tmp_path / "nowhere"
    fails(2, "no corpus at", "index", nowhere, *pack, *to)
    fails(3, "no query pack at", "index", small.corpus, "--pack", nowhere, *to)
    fails(2, "no engine for 'ftp'", "search", "x", *pack, "--to", "ftp://host")
    missing = f"milvus-lite://{tmp_path / 'new.db'}?name=other"
    fails(4, "no Milvus Lite file at", "search", "x", *pack, "--to", missing)
    assert not (tmp_path / "new.db").exists()
    fails(4, "no index 'other'", "search", "x", *pack, "--to", index_url.replace("demo", "other"))
    fails(2, "unknown fusion", "search", "x", *pack, *to, "--fusion", "magic")
    fails(2, "no instruction 'web'", "search", "x", *pack, *to, "--instruction", "web")
    fails(2, "no system 'magic'", "eval", small.corpus, *pack, *to, "--systems", "magic")
    fails(2, "dev.tsv", "eval", small.corpus, *pack, *to, "--split", "dev")
    fails(2, "cannot read the metadata field", "index", small.corpus, *pack, *to,
          "--metadata", "price")  # fmt: skip
    fails(2, "no queries at", "encode", nowhere, *pack, "--out", tmp_path / "q.parquet")
    fails(2, "no model folder", "pack", "distill", small.corpus, "--model", "./nothing",
          "--out", tmp_path / "p")  # fmt: skip
    fails(2, "Missing option '--pack'", "search", "x", *to)
    distill = ["pack", "distill", small.corpus, "--model", MODEL, "--out", tmp_path / "p"]
    fails(2, "unknown table dtype 'int4'", *distill, "--dtype", "int4")
    fails(2, "BM25 with k1 nan", *distill, "--k1", "nan")
    fails(2, "--seed", *distill, "--seed", "-1")
    nothing = write_jsonl(tmp_path / "nothing.jsonl", [1, {"_id": "x"}])
    distill[2] = nothing
    fails(2, "no document in", *distill)
    inside = small.pack / "pack.json" / "x"
    fails(1, "File exists", "search", "heart", *pack, *to, "--json", inside)


def test_a_model_that_is_not_there_is_one_line(small: Small, tmp_path: Path) -> None:
    done = run(
        "pack", "distill", small.corpus, "--model", "nobody/no-such-model", "--out",
        tmp_path / "p", env={"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 2
    assert "cannot open the model 'nobody/no-such-model'" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_version_help_and_completion() -> None:
    import steelyard

    assert ok("--version").strip() == steelyard.__version__
    for command in ("pack", "tower", "index", "encode", "search", "eval", "bench", "demo"):
        assert "--help" in ok(command, "--help")
    # Which shell called is guessed from the parent process, which is any in a test.
    shown = run(
        *("--show-completion", "bash"), env={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    )
    assert "_STEELYARD_COMPLETE" in shown.stdout
