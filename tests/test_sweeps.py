"""Quality against size and fusion weight, on a synthetic index of the tiny pack."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from steelyard.cli import bench_sweeps
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import InputError
from steelyard.eval.collection import JudgedQueries, Query
from steelyard.eval.measures import measure
from steelyard.eval.runs import make_run
from steelyard.eval.sweeps.fusion import measure_fusion, weights
from steelyard.eval.sweeps.results import (
    Difference,
    FusionResult,
    Quality,
    SizesResult,
    read_sweep,
    sweep_to_dict,
)
from steelyard.eval.sweeps.sizes import SizeGrid, default_dims, measure_sizes
from steelyard.plugin.engine import Candidates, Generation
from steelyard.plugin.exact import ExactIndex
from steelyard.plugin.fusion import Fusion, fuse
from steelyard.plugin.urls import open_engine
from steelyard.progress import SilentProgress
from steelyard.types import Document, EncodedDocuments, SparseVectors, l2_normalise
from tests.conftest import DIMS, WORDS, write_jsonl

DOCUMENTS, CANDIDATES = 150, 120
MOST_TERMS = 9


@pytest.fixture
def index(tiny_encoder: QueryEncoder) -> ExactIndex:
    rng = np.random.default_rng(3)
    rows = []
    for _ in range(DOCUMENTS):
        count = rng.integers(3, MOST_TERMS + 1)
        ids = np.sort(rng.choice(np.arange(4, 15), count, replace=False)).astype(np.int32)
        rows.append((ids, rng.integers(1, 200, count).astype(np.float32)))
    content = EncodedDocuments(
        [Document(f"d{number}", "text") for number in range(DOCUMENTS)],
        l2_normalise(rng.normal(size=(DOCUMENTS, DIMS)).astype(np.float32)),
        SparseVectors.from_rows(rows, tiny_encoder.vocabulary_size),
    )
    generation = Generation(
        "i", "s", "s", "p", "c", DIMS, tiny_encoder.vocabulary_size, scale=100.0
    )
    return ExactIndex(generation, content)


@pytest.fixture
def judged(index: ExactIndex, tiny_encoder: QueryEncoder) -> JudgedQueries:
    """Relevant is what the whole vectors find first, so that anything less is worse."""
    rng = np.random.default_rng(5)
    words = [word for word in WORDS if word.isalpha()]
    queries = [Query(f"q{n}", " ".join(rng.choice(words, 3))) for n in range(40)]
    found = index.dense.search(tiny_encoder.encode_dense([query.text for query in queries]), 8)
    qrels = {
        query.id: {document: 8 - rank for rank, document in enumerate(ranking.ids)}
        for query, ranking in zip(queries, found, strict=True)
    }
    return JudgedQueries("tiny/test", queries, qrels)


def ordinary(judged: JudgedQueries, rankings: list[Candidates]) -> Quality:
    run = make_run("s", judged.queries, rankings)
    means = measure(run, judged.qrels, [query.id for query in judged.queries]).means
    return Quality(means["ndcg@10"], means["recall@100"])


def sizes_of(index: ExactIndex, encoder: QueryEncoder, judged: JudgedQueries) -> SizesResult:
    grid = SizeGrid((2, DIMS), (4, MOST_TERMS, None))
    return measure_sizes(
        index, encoder, judged, grid, SilentProgress(), fusion=Fusion(), candidates=CANDIDATES
    )


def test_everything_kept_is_the_ordinary_evaluation(
    index: ExactIndex, tiny_encoder: QueryEncoder, judged: JudgedQueries
) -> None:
    texts = [query.text for query in judged.queries]
    dense = index.dense.search(tiny_encoder.encode_dense(texts), CANDIDATES)
    sparse = index.sparse.search(tiny_encoder.encode_sparse(texts), CANDIDATES)
    joined = [fuse(pair, Fusion()) for pair in zip(dense, sparse, strict=True)]
    points = {
        (p.dims, p.max_terms, p.dtype): p for p in sizes_of(index, tiny_encoder, judged).points
    }
    assert len(points) == 2 * 3 * 3
    whole = points[DIMS, None, "float32"]
    for found, expected in (
        (whole.lookup, dense),
        (whole.sparse, sparse),
        (whole.fused, joined),
    ):
        by_hand = ordinary(judged, expected)
        assert found.ndcg10 == pytest.approx(by_hand.ndcg10, abs=1e-12)
        assert found.recall100 == pytest.approx(by_hand.recall100, abs=1e-12)
    assert points[DIMS, MOST_TERMS, "float32"] == replace(whole, max_terms=MOST_TERMS)
    assert whole.lookup.ndcg10 == pytest.approx(1)
    assert points[2, None, "float32"].lookup.ndcg10 < 0.9
    assert whole.difference == Difference(0, 0, 0)
    small = points[2, None, "float32"]
    assert small.difference is not None
    assert small.difference.mean == pytest.approx(small.fused.ndcg10 - whole.fused.ndcg10)
    assert small.difference.low < small.difference.mean < small.difference.high < 0
    assert points[DIMS, 4, "float32"].sparse != whole.sparse


def test_sizes_add_up_by_hand(
    index: ExactIndex, tiny_encoder: QueryEncoder, judged: JudgedQueries
) -> None:
    points = {
        (p.dims, p.max_terms, p.dtype): p for p in sizes_of(index, tiny_encoder, judged).points
    }
    lengths = np.diff(index.export().sparse.indptr)
    few = points[2, 4, "int8"]
    assert few.dense_bytes == 4 * 2 * DOCUMENTS
    assert few.posting_bytes == 13 * int(np.minimum(lengths, 4).sum())
    assert few.index_bytes == few.dense_bytes + few.posting_bytes
    rows = tiny_encoder.vocabulary_size
    assert few.table_bytes == rows * 2 + rows * 4
    assert points[2, 4, "float16"].table_bytes == rows * 2 * 2
    assert points[DIMS, None, "float32"].table_bytes == rows * DIMS * 4
    assert points[DIMS, None, "float32"].posting_bytes == 13 * int(lengths.sum())


def test_the_table_type_changes_the_look_up_a_little(
    index: ExactIndex, tiny_encoder: QueryEncoder, judged: JudgedQueries
) -> None:
    sizes = sizes_of(index, tiny_encoder, judged)
    points = {p.dtype: p for p in sizes.points if (p.dims, p.max_terms) == (DIMS, None)}
    assert points["int8"].sparse == points["float32"].sparse
    assert 0.98 < points["int8"].lookup.ndcg10 < points["float32"].lookup.ndcg10


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (SizeGrid((DIMS, DIMS + 1)), f"{DIMS + 1} dimensions of vectors that have {DIMS}"),
        (SizeGrid((0,)), "0 dimensions"),
        (SizeGrid((4,), (0,)), "0 terms"),
        (SizeGrid((4,), (8,), ("int4",)), "int4"),
        (SizeGrid((4,), (8,), ()), "no table type"),
    ],
)
def test_impossible_grids_are_refused(
    grid: SizeGrid,
    message: str,
    index: ExactIndex,
    tiny_encoder: QueryEncoder,
    judged: JudgedQueries,
) -> None:
    with pytest.raises(InputError, match=message):
        measure_sizes(
            index, tiny_encoder, judged, grid, SilentProgress(), fusion=Fusion(), candidates=9
        )


def test_default_dims_fit_the_pack() -> None:
    assert default_dims(384) == (64, 128, 256, 384)
    assert default_dims(256) == (64, 128, 256)
    assert default_dims(8) == (8,)


def test_the_ends_of_the_fusion_curve_are_the_arms(
    index: ExactIndex, tiny_encoder: QueryEncoder, judged: JudgedQueries
) -> None:
    texts = [query.text for query in judged.queries]
    dense = index.dense.search(tiny_encoder.encode_dense(texts), CANDIDATES)
    sparse = index.sparse.search(tiny_encoder.encode_sparse(texts), CANDIDATES)
    result = measure_fusion(
        index, tiny_encoder, judged, None, SilentProgress(), candidates=CANDIDATES, step=0.1
    )
    points = {point.dense_weight: point.fused for point in result.points}
    assert len(result.points) == 12
    assert points[0.0].ndcg10 == pytest.approx(ordinary(judged, sparse).ndcg10, abs=1e-12)
    assert points[1.0].ndcg10 == pytest.approx(ordinary(judged, dense).ndcg10, abs=1e-12)
    changes = {point.dense_weight: point.difference for point in result.points}
    assert changes[0.7] == Difference(0, 0, 0)
    assert changes[0.0] is not None
    assert changes[0.0].mean == pytest.approx(points[0.0].ndcg10 - points[0.7].ndcg10)
    for method, weight in (("min-max", 0.7), ("rrf", None)):
        joined = [fuse(p, Fusion(method)) for p in zip(dense, sparse, strict=True)]
        expected = ordinary(judged, joined)
        assert points[weight].ndcg10 == pytest.approx(expected.ndcg10, abs=1e-12)
        assert points[weight].recall100 == pytest.approx(expected.recall100, abs=1e-12)


def test_steps_end_at_one() -> None:
    assert weights(0.25) == [0, 0.25, 0.5, 0.75, 1]
    assert len(weights()) == 21
    for step in (0.3, 0, -0.5, 2, float("nan")):
        with pytest.raises(InputError, match="do not end at 1"):
            weights(step)


def test_a_sweep_is_read_as_it_was_written(
    tmp_path: Path, index: ExactIndex, tiny_encoder: QueryEncoder, judged: JudgedQueries
) -> None:
    sizes = sizes_of(index, tiny_encoder, judged)
    path = tmp_path / "sizes.json"
    path.write_text(json.dumps(sweep_to_dict(sizes)), encoding="utf-8")
    again = read_sweep(path, SizesResult)
    assert again.points == sizes.points
    with pytest.raises(InputError, match="of kind 'sizes' and format 1, expected 'fusion'"):
        read_sweep(path, FusionResult)
    path.write_text('{"format": 1, "kind": "sizes", "points": 3}', encoding="utf-8")
    with pytest.raises(InputError, match="collection"):
        read_sweep(path, SizesResult)
    for text in ("{", "[]"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError):
            read_sweep(path, SizesResult)


def test_the_commands_measure_what_an_engine_stores(
    tmp_path: Path,
    tiny_pack: Path,
    index: ExactIndex,
    tiny_encoder: QueryEncoder,
    judged: JudgedQueries,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = f"milvus-lite://{tmp_path / 'i.db'}?name=i"
    stored = index.export()
    # The index holds impacts; an engine makes them of weights, a hundredth of them.
    weights_of = SparseVectors(
        stored.sparse.indptr,
        stored.sparse.ids,
        (stored.sparse.weights + np.float32(0.5)) / np.float32(100),
        stored.sparse.vocabulary_size,
    )
    spaces = tiny_encoder.metadata.spaces
    made = replace(
        index.generation,
        name="i_20260101000000_00000001",
        dense_space=spaces.dense,
        sparse_space=spaces.sparse,
    )
    engine = open_engine(url, vocabulary=tiny_encoder.tokenizer)
    engine.create(made)
    engine.upsert(made, replace(stored, sparse=weights_of))
    engine.seal(made)
    engine.publish(made)
    engine.close()
    corpus = tmp_path / "tiny"
    (corpus / "qrels").mkdir(parents=True)
    write_jsonl(corpus / "queries.jsonl", [{"_id": q.id, "text": q.text} for q in judged.queries])
    lines = [f"{q}\t{d}\t{n}\n" for q, found in judged.qrels.items() for d, n in found.items()]
    (corpus / "qrels" / "test.tsv").write_text("".join(lines), encoding="utf-8")

    out = tmp_path / "sizes.json"
    bench_sweeps.sizes(
        corpus, tiny_pack, url, "2,8", f"4,{MOST_TERMS},all", candidates=CANDIDATES, json=out
    )
    found = read_sweep(out, SizesResult)
    expected = sizes_of(index, tiny_encoder, judged)
    assert found.points == expected.points
    assert found.command
    assert "8 x all, float32" in capsys.readouterr().out
    bench_sweeps.fusion(corpus, tiny_pack, url, step=0.5, candidates=CANDIDATES, json=out)
    curve = read_sweep(out, FusionResult)
    assert [point.dense_weight for point in curve.points] == [0, 0.5, 1, None]
    assert (curve.documents, curve.sparse, curve.dense_weight) == (DOCUMENTS, "bm25", 0.7)
    with pytest.raises(InputError, match="cannot read 'many' in --max-terms"):
        bench_sweeps.sizes(corpus, tiny_pack, url, max_terms="many")
