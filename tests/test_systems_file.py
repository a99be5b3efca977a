"""``eval --config``: the file, several packs in one table, runs made elsewhere, what fails."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from steelyard.cli.app import app
from steelyard.cli.evaluate import evaluate_and_tell
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import InputError, SteelyardError
from steelyard.eval.carry_out import IncompleteEvaluationError
from steelyard.eval.plan import FusionChange, SystemPlan, counterpart
from steelyard.eval.results import EvaluationResult, read_result
from steelyard.eval.runs import read_trec
from steelyard.eval.systems import parse_system
from steelyard.eval.systems_file import read_systems_file
from steelyard.plugin.engine import SPARSE
from steelyard.plugin.urls import open_engine, relative_to
from steelyard.types import Document
from tests.conftest import ROOT, write_jsonl
from tests.generation_steps import WORDS, Side, encoded, text
from tests.tiny_tower import write_tiny_tower, write_tiny_tower_pack

QUERIES = 12


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, two packs of it, an index of 40 documents, and two judged collections."""
    folder = tmp_path_factory.mktemp("systems")
    model = write_tiny_tower(folder, WORDS)
    for name in ("pack", "pack-two"):
        write_tiny_tower_pack(folder / name, model, WORDS)
    side = Side(f"milvus-lite://{folder / 'index.db'}?name=demo", folder / "pack")
    side.engine.publish(side.load(1))
    side.close()
    for name, shift in (("one", 0), ("two", 20)):
        collection = folder / name
        (collection / "qrels").mkdir(parents=True)
        lines = [{"_id": f"q{i}", "text": text(i + shift)} for i in range(QUERIES)]
        write_jsonl(collection / "queries.jsonl", lines)
        qrels = "".join(f"q{i}\td{i + shift}\t1\n" for i in range(QUERIES))
        (collection / "qrels" / "test.tsv").write_text(qrels, encoding="utf-8")
    return folder


HEAD = """
pack: pack
to: milvus-lite:index.db?name=demo
candidates: 20
"""


def written(place: Path, content: str, name: str = "systems.yaml") -> Path:
    path = place / name
    path.write_text(content, encoding="utf-8")
    return path


def evaluated(path: Path, **options: Any) -> EvaluationResult:
    return evaluate_and_tell(read_systems_file(path), **options).result


def test_many_systems_in_one_table(place: Path, tmp_path: Path) -> None:
    path = written(
        place,
        HEAD
        + """
collections:
  - beir: one
  - beir: two
    name: second
    candidates: 30
systems:
  - bm25
  - lookup
  - full
  - lookup+bm25
  - name: other pack
    pack: pack-two
    dense: lookup
  - name: equal, by rank
    dense: lookup
    sparse: bm25
    fusion: {method: rrf}
    feedback: 2
    candidates: 40
    retention_of: lookup+bm25
  - name: elsewhere
    run: "{collection}.trec"
measures: [nDCG@10, R@30, RR@10]
baseline: lookup+bm25
test: {resamples: 200}
""",
    )
    for name, shift in (("one", 0), ("second", 20)):
        lines = [f"q{i} Q0 d{i + shift} 1 2.5 theirs\n" for i in range(QUERIES)]
        (place / f"{name}.trec").write_text("".join(lines), encoding="utf-8")
    report, runs = tmp_path / "deep" / "eval.json", tmp_path / "runs"
    result = evaluated(path, json=report, runs=runs, nested=True)
    assert read_result(report) == EvaluationResult.from_dict(result.to_dict())
    one, second = result.collections
    assert (one.collection, second.collection) == ("one/test", "second")
    assert one.queries == [f"q{i}" for i in range(QUERIES)]
    assert (one.documents, one.baseline, one.search, one.failed) == (
        40,
        "lookup+bm25",
        "exact",
        {},
    )
    rows = {row.system: row for row in one.rows}
    assert list(rows)[-3:] == ["other pack", "equal, by rank", "elsewhere"]
    assert rows["lookup"].means["recall@30"] is None
    assert "recall@30" not in rows["lookup"].by_query
    assert second.row("lookup").means["recall@30"] is not None
    assert rows["elsewhere"].means["ndcg@10"] == 1
    assert rows["elsewhere"].encode_qps is None
    assert [rows[n].retention_of for n in ("lookup", "other pack", "equal, by rank", "full")] == [
        "full", "full", "lookup+bm25", None
    ]  # fmt: skip
    share = rows["lookup"].retention
    assert share is not None
    ours, full = rows["lookup"].means["ndcg@10"], rows["full"].means["ndcg@10"]
    assert ours is not None
    assert full is not None
    assert share == pytest.approx(ours / full)
    assert rows["lookup+bm25"].against_baseline is None
    tests = [row.against_baseline for row in one.rows if row.against_baseline]
    assert len(tests) == 6
    assert all(t.wins + t.ties + t.losses == QUERIES and t.p_holm >= t.p_value for t in tests)
    settings = rows["equal, by rank"].settings
    assert (settings["candidates"], settings["feedback"]) == (40, 2)
    assert settings["fusion"]["method"] == "rrf"
    folder = runs / "one-test"
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        ["bm25.trec", "lookup.trec", "full.trec", "lookup+bm25.trec", "other_pack.trec",
         "equal__by_rank.trec", "elsewhere.trec"]
    )  # fmt: skip
    assert len((runs / "second" / "bm25.trec").read_text().split("\n")[0].split()) == 6
    _the_runs_measure_the_same(place, folder, one.row("lookup+bm25").means["rr@10"])


def _the_runs_measure_the_same(place: Path, folder: Path, expected: float | None) -> None:
    report = folder / "again.json"
    done = CliRunner().invoke(
        app,
        ["eval", str(place / "one"), "--from-runs", str(folder), "--json", str(report),
         "--baseline", "full", "--measures", "R@1000,RR@10"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    again = read_result(report).collections[0]
    assert again.baseline == "full"
    assert list(again.rows[0].means) == ["ndcg@10", "recall@1000", "rr@10"]
    assert again.row("lookup").retention_of == "full"
    assert again.row("lookup+bm25").retention_of is None
    assert again.row("lookup+bm25").means["rr@10"] == pytest.approx(expected)
    assert again.documents is None
    assert again.search == "runs"
    assert again.row("lookup").means["recall@1000"] is None


def test_one_that_fails_does_not_lose_the_others(place: Path, tmp_path: Path) -> None:
    (place / "unjudged" / "qrels").mkdir(parents=True, exist_ok=True)
    write_jsonl(place / "unjudged" / "queries.jsonl", [{"_id": "z", "text": "a"}])
    (place / "unjudged" / "qrels" / "test.tsv").write_text("q\td\t1\n")
    (place / "strange.trec").write_text("q1 Q0 nobody 1 1.0 x\n")
    (place / "stranger.trec").write_text("nobody Q0 d1 1 1.0 x\n")
    path = written(
        place,
        HEAD
        + """
collections: [{beir: unjudged}, {beir: one}]
systems:
  - bm25
  - lookup
  - lm-head
  - {name: match, match: true}
  - {name: no pack, dense: lookup, pack: nowhere}
  - {name: no index, dense: lookup, to: "milvus-lite:nowhere.db?name=demo"}
  - {name: strange, run: strange.trec}
  - {name: stranger, run: stranger.trec}
""",
    )
    report = tmp_path / "eval.json"
    outcome = evaluate_and_tell(read_systems_file(path), json=report)
    result = read_result(report)
    assert result == EvaluationResult.from_dict(outcome.result.to_dict())
    assert list(result.failed) == ["unjudged/test"]
    (one,) = result.collections
    assert [row.system for row in one.rows] == ["bm25", "lookup"]
    assert "the pack has bm25" in one.failed["lm-head"]
    assert "has no match arm" in one.failed["match"]
    assert "nowhere" in one.failed["no pack"]
    assert "nowhere.db" in one.failed["no index"]
    assert "first is 'nobody', a judged one is 'd0'" in one.failed["strange"]
    assert "first is 'nobody', the first judged is 'q0'" in one.failed["stranger"]
    with pytest.raises(IncompleteEvaluationError, match=r"unjudged/test \(no query") as caught:
        outcome.complain()
    assert caught.value.exit_code == InputError.exit_code
    assert "no pack on one/test" in caught.value.message


def _index(place: Path, name: str, pack: str, count: int, shift: int) -> str:
    """An index of documents d0, d1, ... with the texts of those further on."""
    side = Side(f"milvus-lite://{place / name}.db?name=demo", place / pack)
    generation = side.generation(1)
    documents = [
        Document(f"d{i}", text(i + shift), f"number {i}", f"d{i}", {"number": 1})
        for i in range(count)
    ]
    side.engine.create(generation)
    side.engine.upsert(generation, encoded(side.queries, documents))
    side.engine.seal(generation)
    side.engine.publish(generation)
    side.close()
    return f"'milvus-lite:{name}.db?name=demo'"


def test_a_sparse_arm_of_another_pack_and_index(place: Path) -> None:
    other = _index(place, "other-texts", "pack-two", 40, 3)
    arms = f"dense: lookup, sparse: bm25, sparse_pack: pack-two, sparse_to: {other}"
    systems = f"""
collections: [{{beir: one, candidates: 40}}]
systems:
  - lookup
  - lookup+bm25
  - {{name: theirs, sparse: bm25, pack: pack-two, to: {other}}}
  - {{name: joined, {arms}}}
  - {{name: joined full, {arms.replace("lookup", "full")}}}
  - {{name: all dense, {arms}, fusion: {{weights: {{dense: 1, sparse: 0}}}}}}
  - {{name: all sparse, {arms}, fusion: {{weights: {{dense: 0, sparse: 1}}}}}}
"""
    (measured,) = evaluated(written(place, HEAD + systems)).collections
    rows = {row.system: row for row in measured.rows}
    rr = {name: row.by_query["rr@10"] for name, row in rows.items()}
    assert rr["all sparse"] == rr["theirs"] != rr["all dense"]
    assert rr["all dense"] == rr["lookup"]
    assert rows["joined"].retention_of == "joined full"
    assert rows["joined"].settings["sparse_pack"] == str(place / "pack-two")
    assert "sparse_pack" not in rows["lookup+bm25"].settings
    speed, dense = rows["joined"].encode_qps, rows["lookup"].encode_qps
    assert speed is not None
    assert dense is not None
    assert 0 < speed < dense
    fewer = _index(place, "fewer", "pack-two", 20, 0)
    short = arms.replace(other, fewer)
    with pytest.raises(InputError, match=r"index holds 40 documents, the sparse arm's 20"):
        evaluated(
            written(place, HEAD + f"collections: [{{beir: one}}]\nsystems: [{{name: a, {short}}}]")
        )
    with pytest.raises(InputError, match="but not whole"):
        SystemPlan(parse_system("lookup"), Path("a"), "index", sparse_pack=Path("b"))


def test_another_space_is_refused(place: Path) -> None:
    other = QueryEncoder.load(place / "pack")
    engine = open_engine(f"milvus-lite://{place / 'other.db'}?name=demo")
    side = Side.__new__(Side)
    side.engine, side.queries = engine, other
    spaces = replace(other.metadata.spaces, sparse="sparse-0")
    side.queries.metadata = replace(other.metadata, spaces=spaces)
    engine.publish(side.load(1))
    engine.close()
    path = written(
        place,
        HEAD.replace("index.db", "other.db") + "collections: [{beir: one}]\nsystems: [bm25]",
    )
    with pytest.raises(SteelyardError, match=f"{SPARSE} space is .* are in sparse-0"):
        evaluated(path)


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        ("systems: [bm25]\ncolections: []", r"line 2, colections: unknown key 'colections'",
         "known here: pack, to, candidates, search, fusion, collections, systems"),
        ("systems: [bm25]\ncollections:\n- beir: x\n  splitt: y",
         r"line 4, collections\[1\].splitt: unknown key 'splitt'", "beir, split, ir_datasets"),
        ("collections: [{beir: x}]\nsystems:\n- bm25\n- name: a\n  dens: full",
         r"line 5, systems\[2\].dens: unknown key", "name, dense, sparse, match"),
        ("collections: [{beir: x}]\nsystems:\n- {name: a, dense: half}",
         r"line 3, systems\[1\].dense: input should be 'full', 'lookup' or 'none'", ""),
        ("collections: [{beir: x}]\nsystems: [magic]", "no system 'magic'", ""),
        ("collections: [{beir: x}]\nsystems: [{name: a}]", "'a' has no arm", ""),
        ("collections: [{beir: x}]\nsystems: [{name: a, run: x, dense: full}]", "no arms", ""),
        ("collections: [{beir: x}]\nsystems: [{name: a, sparse: bm25, feedback: 3}]",
         "feedback needs a dense arm", ""),
        ("collections: [{beir: x}]\nsystems: [{name: a, sparse: bm25, sparse_pack: x}]",
         "'a': sparse_pack and sparse_to go together", ""),
        ("collections: [{beir: x}]\nsystems: [bm25, bm25]", "two systems are called 'bm25'", ""),
        ("collections: [{beir: x}]\nsystems: [bm25]\nbaseline: full",
         "no system is called 'full'; there are bm25", ""),
        ("collections: [{beir: x, qrels: y}]\nsystems: [bm25]", "line 1, .*give one of beir", ""),
        ("collections: [{beir: x}]\nsystems: [bm25]\ntest: {confidence: 95}",
         r"line 3, test.confidence: input should be less than 1", ""),
        ("collections: [{beir: x}]\nsystems: [bm25]\nfusion: {weights: {dense: many}}",
         r"fusion.weights.dense: input should be a valid number", ""),
        ("collections: [{beir: x}]\nsystems: [bm25]\nsystems: [full]",
         "line 3: the key 'systems' again", ""),
        ("collections: [{beir: x}]\nsystems: [bm25]\nmeasures: [nDCGG]", "no measure 'nDCGG'", ""),
        ("systems: [bm25]", "line 1, collections: field required", ""),
        ("a: [", "line 1.*: no YAML", ""),
        ("- a", "is no mapping", ""),
        ("", "is no mapping", ""),
    ],
)  # fmt: skip
def test_a_slip_is_shown_where_it_is(
    content: str, message: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_systems_file(written(tmp_path, content))
    assert hint in caught.value.hint
    with pytest.raises(InputError, match="no file"):
        read_systems_file(tmp_path / "nobody.yaml")


def test_the_example_says_what_it_means() -> None:
    plan = read_systems_file(ROOT / "examples" / "systems.yaml")
    (collection,) = plan.collections
    assert collection.name == "scifact/test"
    assert len(collection.read().queries) == 300
    systems = {system.name: system for system in collection.systems}
    assert systems["full"].pack is not None
    assert os.path.normpath(systems["full"].pack) == str(ROOT / "demo" / "pack")
    assert systems["full"].to == f"milvus-lite:{ROOT / 'examples'}/../demo/index.db?name=demo"
    assert systems["equal weights"].fusion == FusionChange(dense=0.5, sparse=0.5)
    assert {name: counterpart(plan, collection.systems) for name, plan in systems.items()} == {
        "full": None,
        "lookup": "full",
        "bm25": None,
        "full+bm25": None,
        "lookup+bm25": "full+bm25",
        "equal weights": "full+bm25",
        "reciprocal ranks": "full+bm25",
        "five for feedback": None,
    }


def test_the_counterpart_is_the_same_but_for_the_model() -> None:
    def plan(name: str, **changes: Any) -> SystemPlan:
        return SystemPlan(parse_system(name), Path("a"), "index", **changes)

    lookup, full = plan("lookup+bm25"), plan("full+bm25")
    deeper = replace(full, system=replace(full.system, name="deeper"), candidates=7)
    other = replace(full, system=replace(full.system, name="other pack"), pack=Path("b"))
    assert counterpart(lookup, [lookup, deeper, other, full]) == "full+bm25"
    assert counterpart(lookup, [lookup, deeper, other]) == "other pack"
    assert counterpart(lookup, [lookup, deeper, plan("full")]) is None
    assert counterpart(full, [full, lookup]) is None


def test_paths_are_relative_to_the_file() -> None:
    folder = Path("/a b")
    assert relative_to("lucene:x?name=n", folder) == "lucene:/a%20b/x?name=n"
    assert relative_to("milvus-lite:///x.db?name=n", folder) == "milvus-lite:///x.db?name=n"
    assert relative_to("opensearch://h:1/n", folder) == "opensearch://h:1/n"
    assert (
        relative_to("sparse=opensearch://h/n,dense=milvus-lite:x.db?name=n", folder)
        == "dense=milvus-lite:/a%20b/x.db?name=n,sparse=opensearch://h/n"
    )


def test_options_that_would_be_passed_over_are_refused(place: Path) -> None:
    for arguments, message in (
        (["--config", "x.yaml", "--split", "train"], "--split has no meaning here"),
        (["corpus", "--config", "x.yaml"], "CORPUS has no meaning here"),
        (["--from-runs", "x", "--qrels", "y", "--candidates", "3"], "--candidates has no meaning"),
        (["--from-runs", str(place)], "--from-runs needs judgements"),
        (["--from-runs", str(place / "pack"), str(place / "one"), "--baseline", "nobody"],
         "no system 'nobody' for a baseline"),
        (["--config", "x.yaml", "--baseline", "full"], "--baseline has no meaning here"),
        ([str(place / "one"), "--pack", "x"], "--to is missing"),
        (["--pack", "x", "--to", "y"], "CORPUS is missing"),
        ([str(place / "one"), "--pack", str(place / "pack"), "--to", "y", "--search", "z"],
         "unknown --search 'z'"),
    ):  # fmt: skip
        done = CliRunner().invoke(app, ["eval", *arguments])
        assert isinstance(done.exception, InputError), arguments
        assert message in str(done.exception)


def test_results_of_another_format_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "eval.json"
    good = {"format": 1, "collections": [], "failed": {}, "versions": {}}
    for value, message in (
        ([], "is no result of an evaluation"),
        ({"rows": []}, "is no result of an evaluation"),
        ({**good, "format": 2}, "is of format 2, this version reads 1"),
        ({**good, "collections": [3]}, "expected an object, found int"),
        ({**good, "collections": [{"queries": [], "rows": []}]}, "'collection' is missing"),
    ):
        path.write_text(json.dumps(value), encoding="utf-8")
        with pytest.raises(InputError, match=message):
            read_result(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="is no JSON"):
        read_result(path)
    with pytest.raises(InputError, match="no result at"):
        read_result(tmp_path / "nobody.json")


def test_runs_made_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "a.trec"
    path.write_text("q Q0 b 1 1.0 x\n\nq Q0 a 2 2e0 x\nr\tQ0\ta\t1\t-1\tx\n")
    assert read_trec(path).scores == {"q": {"b": 1.0, "a": 2.0}, "r": {"a": -1.0}}
    for line, message in (
        ("q Q0 a 1 1.0", "line 1: no result"),
        ("q Q0 a 1 nan x", "line 1: no result"),
        ("q Q0 a 1 1 x\nq Q0 a 2 1 x", "line 2: document 'a' again for query 'q'"),
        ("", "holds no result"),
    ):
        path.write_text(line)
        with pytest.raises(InputError, match=message):
            read_trec(path)
    qrels = tmp_path / "qrels.txt"
    qrels.write_text("q 0 a 1\nr 0 a 2\n")
    path.write_text("q Q0 a 1 1.0 x\n")
    report = tmp_path / "eval.json"
    done = CliRunner().invoke(
        app, ["eval", "--from-runs", str(path), "--qrels", str(qrels), "--json", str(report)]
    )
    assert done.exit_code == 0, done.output
    (row,) = read_result(report).collections[0].rows
    assert (row.system, row.means["ndcg@10"]) == ("a", 0.5)
    assert row.settings["answered"] == 1
