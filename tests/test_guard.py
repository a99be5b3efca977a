"""The regression guard: the committed table, and that it fails where it must."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steelyard.errors import InputError
from steelyard.eval.guard import (
    MISSING,
    OFF,
    UNEXPECTED,
    check_expected,
    collection_of,
    read_expected,
    renewed,
    write_expected,
)
from tests.conftest import ROOT, Demo, write_jsonl
from tests.test_cli import fails, ok

TABLE = ROOT / "examples" / "expected" / "scifact.json"
EXPECTED = read_expected(TABLE)


def as_expected() -> list[dict[str, Any]]:
    """Rows of a report with exactly the table's figures."""
    return [{"system": row.system, **row.measures, "encode_qps": 1.0} for row in EXPECTED.rows]


def report(**changes: Any) -> dict[str, Any]:
    return {"collection": "scifact/test", "rows": as_expected(), **EXPECTED.settings, **changes}


@pytest.mark.model
def test_the_demo_has_the_figures_of_the_table(demo: Demo) -> None:
    """The guard itself: the whole job, recomputed."""
    wanted, found = EXPECTED.settings["document_precision"], demo.report["document_precision"]
    if found != wanted:
        pytest.skip(f"this processor computes in {found}, the table is for {wanted}")
    ok("guard", demo.folder.parent / "demo.json", "--expect", TABLE)


def test_every_system_and_measure_is_in_the_table() -> None:
    names = {row.system for row in EXPECTED.rows}
    assert {"full", "lookup", "bm25", "lookup+bm25", "lookup+bm25+feedback"} <= names
    for row in EXPECTED.rows:
        assert set(row.measures) == {"ndcg@10", "recall@100", "rr@10", "ap"}
        learnt = {"lookup": "distilled", "full": "full", "bm25": "counted"}
        assert row.tolerance == learnt[row.system.split("+")[0]]
    assert max(EXPECTED.tolerances["counted"].values()) <= 0.0005
    assert max(EXPECTED.tolerances["full"].values()) <= 0.003


def test_equal_figures_pass() -> None:
    assert check_expected(as_expected(), EXPECTED) == []


@pytest.mark.parametrize("row", range(len(EXPECTED.rows)))
@pytest.mark.parametrize("measure", ["ndcg@10", "recall@100", "rr@10", "ap"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_figure_off_by_more_than_its_tolerance_is_found(
    row: int, measure: str, sign: int
) -> None:
    expected = EXPECTED.rows[row]
    tolerance = EXPECTED.tolerances[expected.tolerance][measure]
    rows = as_expected()
    rows[row][measure] += sign * tolerance
    assert check_expected(rows, EXPECTED) == []
    rows[row][measure] += sign * 0.0001
    (found,) = check_expected(rows, EXPECTED)
    assert (found.kind, found.system, found.measure) == (OFF, expected.system, measure)
    assert found.fails
    assert found.expected == expected.measures[measure]
    assert found.found == pytest.approx(rows[row][measure])


@pytest.mark.parametrize("value", [None, float("nan")])
def test_no_figure_is_no_pass(value: float | None) -> None:
    rows = as_expected()
    rows[0]["ndcg@10"] = value
    (found,) = check_expected(rows, EXPECTED)
    assert found.fails
    assert found.kind == (MISSING if value is None else OFF)


def test_missing_systems_fail_and_new_ones_are_told() -> None:
    rows = as_expected()
    rows[0] = {**rows[0], "system": "another"}
    missing, unexpected = check_expected(rows, EXPECTED)
    assert (missing.kind, missing.system, missing.fails) == (MISSING, "full", True)
    assert (unexpected.kind, unexpected.system, unexpected.fails) == (UNEXPECTED, "another", False)


def test_the_collection_and_the_settings_must_be_the_tables() -> None:
    several = {"collections": [{"collection": "other", "rows": []}, report()]}
    assert collection_of(several, EXPECTED)["rows"] == as_expected()
    with pytest.raises(InputError, match="measures other, the table expects scifact/test"):
        collection_of(report(collection="other"), EXPECTED)
    with pytest.raises(InputError, match="made with candidates 100, the table with 1000"):
        collection_of(report(candidates=100), EXPECTED)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t.pop("rows"), "field 'rows' is missing"),
        (lambda t: t.update(format=2), "has format 2, this version reads 1"),
        (lambda t: t["tolerances"]["full"].pop("ap"), "'full' of full does not say ap"),
        (lambda t: t["rows"][0].update(tolerance="none"), "'none' of full does not say"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(
    tmp_path: Path, damage: Callable[[dict[str, Any]], None], message: str
) -> None:
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    damage(table)
    path = tmp_path / "table.json"
    path.write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_expected(path)


def test_a_renewed_table_reads_as_before_where_nothing_changed(tmp_path: Path) -> None:
    written = tmp_path / "table.json"
    write_expected(written, renewed(as_expected(), EXPECTED, {}))
    assert written.read_bytes() == TABLE.read_bytes()
    with pytest.raises(InputError, match="the report has no lookup"):
        renewed(as_expected()[:1], EXPECTED, {})
    with pytest.raises(InputError, match="no table of expected figures at"):
        read_expected(tmp_path / "none")


def test_the_command_says_what_is_off_and_how_to_renew(tmp_path: Path) -> None:
    table, good, bad = tmp_path / "table.json", tmp_path / "good.json", tmp_path / "bad.json"
    shutil.copy(TABLE, table)
    rows = as_expected()
    rows[1]["ndcg@10"] -= 0.1
    write_jsonl(good, [report()])
    write_jsonl(bad, [report(rows=[*rows, {"system": "another"}])])
    assert "7 systems as expected" in ok("guard", good, "--expect", table)
    said = fails(1, "1 figures of scifact/test are not as expected, first lookup ndcg@10",
                 "guard", bad, "--expect", table)  # fmt: skip
    assert "--renew" in said
    assert "another" in ok("guard", bad, "--expect", table, "--renew")
    renewed = json.loads(table.read_text("utf-8"))["rows"][1]["measures"]["ndcg@10"]
    assert renewed == round(rows[1]["ndcg@10"], 4)
    fails(1, "first lookup ndcg@10", "guard", good, "--expect", table)
