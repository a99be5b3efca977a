"""Measures by hand, runs that keep our order, systems by name."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from steelyard.encoders.documents.from_pack import open_dense_encoder
from steelyard.errors import InputError
from steelyard.eval.collection import Query, read_judged, read_queries
from steelyard.eval.evaluate import evaluate
from steelyard.eval.measures import MEASURES, measure, named_measures, too_deep
from steelyard.eval.runs import make_run, write_trec
from steelyard.eval.systems import DEFAULT_SYSTEMS, parse_systems
from steelyard.indexer.loading.load import exact_index
from steelyard.plugin.engine import Candidates
from steelyard.plugin.fusion import Fusion
from steelyard.progress import SilentProgress
from tests.conftest import SCIFACT, Small, write_jsonl

QUERIES = [Query("q1", "one"), Query("q2", "two")]


def test_measures_by_hand() -> None:
    qrels = {"q1": {"a": 1, "b": 1}, "q2": {"c": 1}}
    rankings = [
        Candidates(["x", "a", "y", "b"], np.array([4.0, 3, 2, 1])),
        Candidates([], np.zeros(0)),
    ]
    found = measure(make_run("s", QUERIES, rankings), qrels, ["q1", "q2"])
    ideal = 1 + 1 / math.log2(3)
    assert found.by_query["ndcg@10"].tolist() == pytest.approx(
        [(1 / math.log2(3) + 1 / math.log2(5)) / ideal, 0]
    )
    assert found.means["rr@10"] == pytest.approx(0.25)
    assert found.means["ap"] == pytest.approx((1 / 2 + 2 / 4) / 2 / 2)
    assert found.means["recall@100"] == pytest.approx(0.5)
    assert found.means["recall@1000"] == pytest.approx(0.5)
    few = measure(make_run("s", QUERIES, rankings), qrels, ["q1", "q2"], named_measures(["P@4"]))
    assert few.means == pytest.approx({"ndcg@10": found.means["ndcg@10"], "p@4": 0.25})


def test_measures_by_name() -> None:
    assert named_measures(list(MEASURES.values())) == MEASURES
    assert named_measures(["AP", "R@5"]) == {"ndcg@10": "nDCG@10", "ap": "AP", "recall@5": "R@5"}
    for name in ("nonsense", "nDCG@@", "P@"):
        with pytest.raises(InputError, match="no measure"):
            named_measures([name])
    assert too_deep(MEASURES, 999) == ["recall@1000"]
    assert too_deep(MEASURES, 9) == ["recall@100", "recall@1000"]


def test_ties_keep_our_order_in_every_tool(tmp_path: Path) -> None:
    ranking = Candidates(["a", "b", "c"], np.array([1.0, 1.0, 1.0]))
    run = make_run("s", QUERIES[:1], [ranking])
    scores = list(run.scores["q1"].values())
    assert scores[0] > scores[1] > scores[2] > 0.999999
    found = measure(run, {"q1": {"a": 1}}, ["q1"])
    assert found.means["rr@10"] == 1
    write_trec(run, tmp_path / "s.trec")
    lines = [line.split() for line in (tmp_path / "s.trec").read_text("utf-8").splitlines()]
    assert [line[:4] for line in lines] == [
        ["q1", "Q0", name, str(rank)] for rank, name in enumerate("abc", start=1)
    ]
    assert [float(line[4]) for line in lines] == scores


def test_systems_by_name() -> None:
    systems = {s.name: s for s in parse_systems(DEFAULT_SYSTEMS)}
    assert len(systems) == 7
    assert systems["lookup+bm25+feedback"].feedback
    assert systems["bm25"].dense is None
    assert parse_systems("lookup+feedback", 7)[0].feedback == 7
    assert parse_systems("lookup+match+bm25")[0].match
    assert not systems["full"].sparse


@pytest.mark.parametrize(
    "text", ["", "magic", "full+lookup", "bm25+feedback", "full,full", "full+full", "feedback"]
)
def test_impossible_systems_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_systems(text)


def test_scifact_is_read_as_it_is() -> None:
    judged = read_judged(SCIFACT)
    assert len(judged.queries) == 300
    assert sum(map(len, judged.qrels.values())) == 339
    assert len(read_judged(SCIFACT, "train").queries) == 809
    with pytest.raises(InputError, match=r"dev\.tsv") as caught:
        read_judged(SCIFACT, "dev")
    assert caught.value.hint == "splits here: test, train"


def test_bad_query_lines_are_told_beside_the_good(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    write_jsonl(path, [{"_id": "1", "text": "a"}, {"id": 2, "text": ""}, {"text": "x"}, [], 3])
    with path.open("ab") as stream:
        stream.write(b'{"_id": "1", "text": "again"}\n{"_id": "caf\xe9"}\n')
        stream.write(b'{"_id": "\\ud800", "text": "x"}\n')
    queries, bad = read_queries(path)
    assert [q.id for q in queries] == ["1", "2"]
    assert [b.line for b in bad] == [3, 4, 5, 6, 7, 8]
    with pytest.raises(InputError, match="holds no query: line 1, not a JSON object but list"):
        read_queries(write_jsonl(path, [[1]]))


def test_judgements_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "queries.jsonl", [{"_id": "1", "text": "a"}])
    (tmp_path / "qrels").mkdir()
    qrels = tmp_path / "qrels" / "test.tsv"
    qrels.write_bytes(b'query-id\tcorpus-id\tscore\n1\t"d\t1\n\n2\td\t1\n')
    judged = read_judged(tmp_path)
    assert judged.qrels["1"] == {'"d': 1}
    assert judged.missing == 1
    for bad in (b"1\td\n", b"1\td\tx\n", b"1\tcaf\xe9\t1\n"):
        qrels.write_bytes(bad)
        with pytest.raises(InputError, match=r"test\.tsv, line 1"):
            read_judged(tmp_path)


def test_an_id_with_white_space_is_no_trec_id(tmp_path: Path) -> None:
    run = make_run("s", QUERIES[:1], [Candidates(["a b"], np.ones(1))])
    with pytest.raises(InputError, match="'a b' holds white space"):
        write_trec(run, tmp_path / "s.trec")


def test_systems_on_a_small_collection(small: Small) -> None:
    judged, made = read_judged(small.corpus), small.made
    assert len(judged.queries) > 20
    results = evaluate(
        parse_systems(DEFAULT_SYSTEMS),
        judged,
        small.encoder,
        exact_index(made.manifest, made.shards, made.metadata),
        lambda: open_dense_encoder(made.metadata),
        SilentProgress(),
        fusion=Fusion(),
        candidates=100,
    )
    rows = {result.system.name: result.row() for result in results}
    for name, row in rows.items():
        assert row["ndcg@10"] > 0.75, name
        assert row["encode_qps"] > 0
        assert row["recall@1000"] is None
        assert row["recall@100"] >= row["ndcg@10"] - 0.01
    hits = {len(scores) for scores in results[3].run.scores.values()}
    assert max(hits) <= 120
