"""The folder for Pyserini: its files, its counts, and what is refused; without Pyserini."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import InputError, PackMismatchError
from steelyard.eval.collection import JudgedQueries, Query
from steelyard.eval.pyserini.export import PyseriniExport, export_pyserini
from steelyard.eval.pyserini.source import Source, open_source
from steelyard.progress import SilentProgress
from steelyard.types import Document, EncodedDocuments, SparseVectors
from tests.conftest import ROOT, Small
from tests.test_cli import fails, ok

faiss = pytest.importorskip("faiss")
pandas = pytest.importorskip("pandas")

IDS = ["d0", "d1", "d2"]


def content(ids: Sequence[str] = IDS) -> EncodedDocuments:
    """Three documents with impacts; the second has no term."""
    made = [Document(i, f"text é {row}", "title" if row else "") for row, i in enumerate(ids)]
    rows = [
        (np.array([4, 9], np.int32), np.array([1, 512], np.float32)),
        (np.zeros(0, np.int32), np.zeros(0, np.float32)),
        (np.array([7], np.int32), np.array([30], np.float32)),
    ]
    dense = np.eye(8, dtype=np.float32)[: len(ids)]
    return EncodedDocuments(made, dense, SparseVectors.from_rows(rows[: len(ids)], 15))


def export(encoder: QueryEncoder, out: Path, **changes: Any) -> PyseriniExport:
    documents = changes.pop("documents", content())
    arms = changes.pop("of", ("dense", "sparse"))
    source = Source("here", 8, arms, iter([documents]))
    return export_pyserini(source, encoder, out, SilentProgress(), **changes)


def judged(queries: Sequence[Query]) -> JudgedQueries:
    return JudgedQueries("c/test", list(queries), {q.id: {"d0": 2, "d1": 0} for q in queries})


def test_the_files(tiny_encoder: QueryEncoder, tmp_path: Path) -> None:
    queries = [Query("007", " the heavy\tarm "), Query("q2", "🦄")]
    made = export(tiny_encoder, tmp_path / "x", judged=judged(queries), query_scale=100)
    assert (made.documents, made.empty, made.lucene_documents, made.postings) == (3, 1, 2, 3)
    (file,) = (tmp_path / "x" / "collection").iterdir()
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert lines == [
        {"id": "d0", "contents": "text é 0", "vector": {"4": 1, "9": 512}},
        {"id": "d1", "contents": "title text é 1", "vector": {}},
        {"id": "d2", "contents": "title text é 2", "vector": {"7": 30}},
    ]
    index = faiss.read_index(str(tmp_path / "x" / "faiss" / "index"))
    assert (index.ntotal, index.d, index.metric_type) == (3, 8, faiss.METRIC_INNER_PRODUCT)
    np.testing.assert_array_equal(index.reconstruct_n(0, 3), content().dense)
    assert (tmp_path / "x" / "faiss" / "docid").read_text("utf-8") == "d0\nd1\nd2\n"
    folder = tmp_path / "x" / "queries"
    topics = json.loads((folder / "topics.json").read_text("utf-8"))
    assert topics == {"007": {"title": "the heavy\tarm"}, "q2": {"title": "🦄"}}
    assert (folder / "topics.tsv").read_text("utf-8") == "007\tthe heavy arm\nq2\t🦄\n"
    assert (folder / "qrels.txt").read_text("utf-8").splitlines() == [
        "007 0 d0 2", "007 0 d1 0", "q2 0 d0 2", "q2 0 d1 0"]  # fmt: skip
    encoded = [json.loads(line) for line in (folder / "sparse.jsonl").open(encoding="utf-8")]
    assert [line["contents"] for line in encoded] == ["the heavy\tarm", "🦄"]
    assert encoded[0]["vector"]
    assert not encoded[1]["vector"]
    frame = pandas.read_pickle(folder / "embedding.pkl")
    assert frame["text"].tolist() == ["the heavy\tarm", "🦄"]
    expected = tiny_encoder.encode_query(queries[0].text).dense[0]
    np.testing.assert_allclose(frame["embedding"].tolist()[0], expected, atol=1e-7)
    assert made.queries is not None
    assert (made.queries.count, made.queries.judgements) == (2, 4)
    assert (made.queries.without_dense, made.queries.without_sparse) == (1, 1)
    stored = json.loads((tmp_path / "x" / "export.json").read_text("utf-8"))
    assert (stored["lucene_documents"], stored["queries"]["count"]) == (2, 2)


def test_files_are_of_bounded_size(tiny_encoder: QueryEncoder, tmp_path: Path) -> None:
    assert export(tiny_encoder, tmp_path / "x", file_bytes=80).files == 2
    files = sorted((tmp_path / "x" / "collection").iterdir())
    assert [file.name for file in files] == ["documents-00000.jsonl", "documents-00001.jsonl"]
    assert [len(file.read_text("utf-8").splitlines()) for file in files] == [2, 1]


@pytest.mark.parametrize("arm", ["dense", "sparse"])
def test_one_arm(tiny_encoder: QueryEncoder, tmp_path: Path, arm: str) -> None:
    queries = judged([Query("q", "arm")])
    export(tiny_encoder, tmp_path / "x", of=(arm,), judged=queries)
    export(tiny_encoder, tmp_path / "y", arms=[arm], judged=queries)
    for name in ("x", "y"):
        there = {str(p.relative_to(tmp_path / name)) for p in (tmp_path / name).rglob("*")}
        assert ("faiss/index" in there, "queries/embedding.pkl" in there) == (arm == "dense",) * 2
        assert ("collection" in there, "queries/sparse.jsonl" in there) == (arm == "sparse",) * 2
        text = (tmp_path / name / "README.md").read_text("utf-8")
        assert ("search.faiss" in text) == (arm == "dense")
        assert ("search.lucene" in text) == (arm == "sparse")
        assert "fusion" not in text
    with pytest.raises(InputError, match="has no arm"):
        export(tiny_encoder, tmp_path / "z", of=(arm,), arms=["dense", "sparse"])
    with pytest.raises(InputError, match="has no arm match"):
        export(tiny_encoder, tmp_path / "z", arms=["match"])


@pytest.mark.parametrize("bad", ["two words", "", "tab\t", "line\n", "\u3000x"])
def test_ids_that_would_change_are_refused(
    tiny_encoder: QueryEncoder, tmp_path: Path, bad: str
) -> None:
    with pytest.raises(InputError, match="the document id"):
        export(tiny_encoder, tmp_path / "x", documents=content(["d0", bad]))
    with pytest.raises(InputError, match="the query id"):
        export(tiny_encoder, tmp_path / "x", judged=judged([Query(bad, "arm")]))
    assert not (tmp_path / "x").exists()


def test_queries_that_pyserini_cannot_tell_apart(
    tiny_encoder: QueryEncoder, tmp_path: Path
) -> None:
    twice = judged([Query("a", "arm"), Query("b", "arm")])
    assert export(tiny_encoder, tmp_path / "x", judged=twice).queries is not None
    assert len((tmp_path / "x/queries/sparse.jsonl").read_text("utf-8").splitlines()) == 1
    apart = judged([Query("a", "arm"), Query("b", "arm ")])
    with pytest.raises(InputError, match="'a' and 'b' differ by the white space"):
        export(tiny_encoder, tmp_path / "y", judged=apart)


def test_a_place_that_is_taken(tiny_encoder: QueryEncoder, tmp_path: Path) -> None:
    export(tiny_encoder, tmp_path / "x")
    with pytest.raises(InputError, match="already holds an export"):
        export(tiny_encoder, tmp_path / "x")
    export(tiny_encoder, tmp_path / "x", documents=content(["e0", "e1"]), overwrite=True)
    assert (tmp_path / "x/faiss/docid").read_text("utf-8") == "e0\ne1\n"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear")
    with pytest.raises(InputError, match="is not an export"):
        export(tiny_encoder, tmp_path / "mine", overwrite=True)


def test_sources_that_are_none(tiny_encoder: QueryEncoder, tmp_path: Path) -> None:
    for where, message in ((tmp_path, "no shards in"), (tmp_path / "none", "no folder of shards")):
        with pytest.raises(InputError, match=message), open_source(str(where), tiny_encoder):
            pass


def test_the_command(small: Small, tmp_path: Path, tiny_pack: Path) -> None:
    out, report = tmp_path / "x", tmp_path / "export.json"
    arguments = ("export", "pyserini", small.made.shards, "--pack", small.pack, "--out", out)
    told = ok(*arguments, "--queries", small.corpus, "--json", report)
    assert "120 documents in 1 files" in told
    made = json.loads(report.read_text(encoding="utf-8"))
    assert (made["documents"], made["faiss_documents"]) == (120, 120)
    assert made["queries"]["count"] > 10
    fails(2, "already holds an export", *arguments)
    fails(2, "no arm none", *arguments, "--overwrite", "--arms", "none")
    other = QueryEncoder.load(tiny_pack)
    with pytest.raises(PackMismatchError), open_source(str(small.made.shards), other):
        pass


def test_without_faiss_the_error_names_the_install_line(tiny_pack: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from steelyard.encoders.query.encoder import QueryEncoder\n"
        "from steelyard.errors import MissingExtraError\n"
        "from tests.test_pyserini_export import Query, export, judged\n"
        "sys.modules[sys.argv[3]] = None\n"
        "queries = judged([Query('q', 'arm')])\n"
        "encoder = QueryEncoder.load(sys.argv[1])\n"
        "try: export(encoder, Path(sys.argv[2]), judged=queries)\n"
        "except MissingExtraError as error: print(error)\n"
    )
    for module in ("faiss", "pandas"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tiny_pack), str(tmp_path / "x"), module],
            capture_output=True, text=True, check=False, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert 'pip install "steelyard[pyserini]"' in done.stdout, done.stderr
        assert module in done.stdout
    assert not (tmp_path / "x").exists()
