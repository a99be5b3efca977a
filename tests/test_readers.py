"""Every format gives the same documents, and a broken record costs itself only."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steelyard.errors import InputError
from steelyard.indexer.reading import streams
from steelyard.indexer.reading.documents import documents_of
from steelyard.indexer.reading.mapping import FieldMapping
from steelyard.indexer.reading.metadata_fields import parse_fields
from steelyard.indexer.reading.readers import open_corpus
from steelyard.indexer.reading.spool import spool_input
from steelyard.indexer.reading.streams import MAX_LINE_BYTES, read_lines, split_lines
from steelyard.indexer.reading.validation import ReadDocument, Rejection
from steelyard.types import Document
from tests.conftest import write_jsonl

FIELDS = "price:float,stock:int,sold:bool,brand:keyword"
VALUES: list[dict[str, Any]] = [
    {"id": "1", "title": "A", "text": "first, with a comma", "price": 1.5, "stock": 3,
     "sold": True, "brand": "x"},
    {"id": "2", "title": "", "text": 'two "quoted" lines', "price": None, "stock": -4,
     "sold": False, "brand": "y z"},
    {"id": "3", "title": "Ünïcødé", "text": "日本語 😀", "price": 1e-3, "stock": None,
     "sold": None, "brand": None},
]  # fmt: skip


def results(source: str | Path, fields: str = "", **options: Any) -> list[Any]:
    kind = options.pop("format", None)
    corpus = open_corpus(source, FieldMapping.parse(metadata=fields, **options), kind)
    found = list(documents_of(corpus, parse_fields(fields)))
    assert corpus.survey().records == len(found)
    return found


def documents(source: str | Path, fields: str = "", **options: Any) -> list[Document]:
    found = results(source, fields, **options)
    assert [r for r in found if isinstance(r, Rejection)] == []
    return [r.document for r in found]


def rejected(found: list[Any]) -> list[tuple[int, str]]:
    return [(r.line, r.reason) for r in found if isinstance(r, Rejection)]


def write_csv(path: Path, values: list[dict[str, Any]], dialect: str = "excel") -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(values[0]), dialect=dialect)
    writer.writeheader()
    writer.writerows(values)
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    return path


def write_tsv(path: Path, values: list[dict[str, Any]]) -> Path:
    rows = [list(values[0])]
    rows += [["" if v is None else str(v) for v in value.values()] for value in values]
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, values: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(values), path, row_group_size=2)
    return path


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], Path]] = {
    "jsonl": write_jsonl,
    "csv": write_csv,
    "tsv": write_tsv,
    "parquet": write_parquet,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_documents(tmp_path: Path, kind: str) -> None:
    path = WRITERS[kind](tmp_path / f"c.{kind}", VALUES)
    want = documents(write_jsonl(tmp_path / "want.jsonl", VALUES), FIELDS)
    assert [d.text for d in want] == [value["text"] for value in VALUES]
    assert dict(want[0].metadata) == {"price": 1.5, "stock": 3, "sold": True, "brand": "x"}
    assert documents(path, FIELDS) == want
    if kind != "parquet":
        data = path.read_bytes()
        packed = tmp_path / f"c.{kind}.gz"
        packed.write_bytes(gzip.compress(data[:50]) + gzip.compress(data[50:]))
        assert documents(packed, FIELDS) == want
        zst = tmp_path / f"c.{kind}.zst"
        halves = [pa.compress(part, "zstd", asbytes=True) for part in (data[:50], data[50:])]
        zst.write_bytes(b"".join(halves))
        assert documents(zst, FIELDS) == want
        other = tmp_path / "no-known-name"
        other.write_bytes(data)
        assert documents(other, FIELDS, format=kind) == want
        with pytest.raises(InputError, match="--format"):
            open_corpus(other)


@pytest.mark.parametrize("kind", WRITERS)
def test_fields_are_mapped(tmp_path: Path, kind: str) -> None:
    values = [
        {"sku": 7, "name": "N", "description": "d", "body": "b", "cost": 2.0, "text": "not this"},
        {"sku": 8, "name": "", "description": "", "body": "only", "cost": None, "text": "nor"},
    ]
    path = WRITERS[kind](tmp_path / f"c.{kind}", values)
    options = {"id": "sku", "title": "name", "text": "description,body"}
    found = documents(path, "price:float=cost", **options)
    assert [(d.id, d.title, d.text, dict(d.metadata)) for d in found] == [
        ("7", "N", "d\nb", {"price": 2.0}),
        ("8", "", "only", {}),
    ]
    assert [d.title for d in documents(path, id="sku", title="")] == ["", ""]
    if kind != "jsonl":
        for wrong in ({"id": "no"}, {**options, "title": "no"}, {**options, "text": "no"}):
            with pytest.raises(InputError, match="has no column no"):
                open_corpus(path, FieldMapping.parse(**wrong)).survey()
        with pytest.raises(InputError, match="has no column _id or id"):
            open_corpus(path).survey()


def test_a_name_leads_into_an_object(tmp_path: Path) -> None:
    values = [{"key": {"id": "1"}, "body": {"plain": "t"}, "offer": {"net": 3}, "a.b": "x"}]
    options = {"id": "key.id", "text": "body.plain", "title": "a.b"}
    for path in (
        write_jsonl(tmp_path / "c.jsonl", values),
        write_parquet(tmp_path / "c.parquet", values),
    ):
        (found,) = documents(path, "price:int=offer.net", **options)
        assert (found.id, found.text, found.title) == ("1", "t", "x")
        assert found.metadata == {"price": 3}


def test_texts_of_a_table_are_converted(tmp_path: Path) -> None:
    rows = [
        ("1", " 2.50 ", "-7", "TRUE", "7"),
        ("2", "1,5", "", "", ""),
        ("3", "nan", "", "", ""),
        ("4", "", "1_000", "", ""),
        ("5", "", "1.0", "", ""),
        ("6", "", "", "maybe", ""),
        ("7", "", "9" * 30, "", ""),
        ("8", "1e999", "", "", ""),
        ("9", ".5e1", "007", "0", " "),
    ]
    text = "id\ttext\tprice\tstock\tsold\tbrand\n"
    text += "".join(f"{i}\tt\t{p}\t{n}\t{s}\t{b}\n" for i, p, n, s, b in rows)
    path = tmp_path / "c.tsv"
    path.write_text(text)
    found = results(path, FIELDS)
    good = [dict(r.document.metadata) for r in found if isinstance(r, ReadDocument)]
    assert good == [
        {"price": 2.5, "stock": -7, "sold": True, "brand": "7"},
        {"price": 5.0, "stock": 7, "sold": False, "brand": " "},
    ]
    assert rejected(found) == [
        (3, "metadata field price: expected float, found '1,5'"),
        (4, "metadata field price: expected float, found 'nan'"),
        (5, "metadata field stock: expected int, found '1_000'"),
        (6, "metadata field stock: expected int, found '1.0'"),
        (7, "metadata field sold: expected bool (true, false, 1, 0), found 'maybe'"),
        (8, "metadata field stock: integer of more than 64 bits"),
        (9, "metadata field price: not a finite number"),
    ]


def test_columns_by_number_need_no_header(tmp_path: Path) -> None:
    path = tmp_path / "collection.tsv"
    path.write_text("0\tthe first passage\n1\tthe second\n2\n")
    found = results(path, id="1", text="2")
    assert [r.document.text for r in found[:2]] == ["the first passage", "the second"]
    assert rejected(found) == [(3, "1 fields, the first row has 2")]


FIELD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(FIELD, min_size=1, max_size=20), st.booleans())
def test_csv_written_by_python_is_read_whole(tmp_path: Path, texts: list[str], unix: bool) -> None:
    values = [{"id": str(n), "text": "t" + text} for n, text in enumerate(texts)]
    path = write_csv(tmp_path / "c.csv", values, "unix" if unix else "excel")
    assert [(d.id, d.text) for d in documents(path)] == [(v["id"], v["text"]) for v in values]


BROKEN = {
    b'x,"never closed': "broken CSV: a quote is not closed",
    b'x,"closed" too early': "broken CSV",
    b"x,y,z": "3 fields, the header has 2",
    b"x": "1 fields, the header has 2",
    b"x,caf\xe9": "not UTF-8",
    b'x,"caf\xe9\n in two lines"': "not UTF-8",
    b"x,a\0b": "NUL",
    b",no id": "missing id",
    b"x,": "empty text",
    b"x," + b"t" * (MAX_LINE_BYTES + 1): "too large: a line",
    b"x," + b"t" * 1_000_001: "too large: 1,000,001 bytes",
}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([None, *list(BROKEN)[:9]]), max_size=25))
def test_broken_csv_records_lose_no_other(tmp_path: Path, kinds: list[bytes | None]) -> None:
    check_broken(tmp_path / "c.csv", kinds)


def test_large_broken_csv_records_lose_no_other(tmp_path: Path) -> None:
    check_broken(tmp_path / "c.csv", [None, *BROKEN, None, *BROKEN])


def check_broken(path: Path, kinds: list[bytes | None]) -> None:
    good, bad, line = [], [], 2
    data = [b"id,text"]
    for kind in kinds:
        if kind is None:
            good.append((line, f"{line}"))
            # Quoted, or else a quote that was never closed before would swallow it.
            data.append(f'{line},"a ""good"" one\nin two lines"'.encode())
        else:
            bad.append((line, BROKEN[kind]))
            data.append(kind)
        line += data[-1].count(b"\n") + 1
    path.write_bytes(b"\n".join(data) + b"\n")
    found = results(path)
    assert [(r.line, r.document.id) for r in found if isinstance(r, ReadDocument)] == good
    said = rejected(found)
    assert [line for line, _ in said] == [line for line, _ in bad]
    for (_, reason), (_, expected) in zip(said, bad, strict=True):
        # What an open quote meets first decides what is said of it.
        assert expected.split(":")[0] in reason


def test_a_quote_that_is_never_closed_is_given_up_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steelyard.indexer.reading.csv_records.MAX_LINE_BYTES", 1000)
    path = tmp_path / "c.csv"
    rows = [f"{n},plain" for n in range(500)]
    path.write_text("\n".join(["id,text", 'x,"open', *rows]))
    found = results(path)
    assert [line for line, _ in rejected(found)] == [2]
    assert "a quote is not closed" in rejected(found)[0][1]
    assert len(found) == 501


@given(st.lists(st.binary(max_size=30), max_size=20), st.integers(1, 40), st.integers(1, 20))
def test_lines_are_split_as_python_does(parts: list[bytes], block: int, limit: int) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(block, size or block))

    data = b"\n".join(parts)
    want = [line.rstrip(b"\n") for line in io.BytesIO(data)]
    got = list(split_lines(Slow(data), limit))
    assert got == [line if len(line) <= limit else None for line in want]


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl.gz"
    with gzip.open(path, "wb", 1) as stream:
        stream.write(b'{"_id": "1", "text": "before"}\n{"_id": "2", "text": "')
        for _ in range(300):
            stream.write(b"x" * 2**20)
        stream.write(b'"}\n{"_id": "3", "text": "behind"}\n')
    tracemalloc.start()
    try:
        found = list(documents_of(open_corpus(path)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [r.line for r in found] == [1, 2, 3]
    assert rejected(found) == [(2, streams.TOO_LONG)]
    assert peak < 3 * MAX_LINE_BYTES


def test_broken_values_in_parquet_cost_their_own_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steelyard.indexer.reading.arrow_rows.MAX_LINE_BYTES", 1000)
    offsets, data = [0], b""
    for text in (b"good", b"caf\xe9", b"y" * 2000, b"good too", b"a\0b"):
        data += text
        offsets.append(len(data))
    buffers = [None, pa.py_buffer(pa.array(offsets, pa.int32()).buffers()[1]), pa.py_buffer(data)]
    texts = pa.Array.from_buffers(pa.string(), 5, buffers)
    table = pa.table({"id": pa.array([1, 2, 3, 4, 5]), "text": texts})
    path = tmp_path / "c.parquet"
    pq.write_table(table, path)
    found = results(path)
    assert [r.document.id for r in found if isinstance(r, ReadDocument)] == ["1", "4"]
    assert rejected(found) == [
        (2, "text is not UTF-8 at byte 3"),
        (3, "too large: text of 2,000 bytes"),
        (5, "text holds a NUL character"),
    ]


@pytest.mark.parametrize("kind", ["parquet", "jsonl.gz", "jsonl.zst"])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, kind: str) -> None:
    values = [{"id": str(n), "text": os.urandom(40).hex()} for n in range(3000)]
    path = tmp_path / f"c.{kind}"
    if kind == "parquet":
        write_parquet(path, values)
    else:
        data = "".join(json.dumps(value) + "\n" for value in values).encode()
        packed = pa.compress(data, "zstd", asbytes=True) if "zst" in kind else gzip.compress(data)
        path.write_bytes(packed)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be read to its end"):
        results(path)
    path.write_bytes(b"nothing of the kind, but long enough to be looked at")
    with pytest.raises(InputError, match="cannot be read to its end"):
        results(path)


def test_a_folder_and_a_glob_are_read_in_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "b" / "_skipped").mkdir(parents=True)
    write_jsonl(tmp_path / "b" / "2.jsonl", [{"id": "b2", "text": "t"}, 7])
    write_csv(tmp_path / "b" / "10.csv", [{"id": "b10", "text": "t"}, {"id": "a", "text": "t"}])
    write_jsonl(tmp_path / "a.jsonl", [{"id": "a", "text": "t"}, {"id": "a", "text": "t"}])
    write_jsonl(tmp_path / "b" / "_skipped" / "x.jsonl", [{"id": "x", "text": "t"}])
    write_jsonl(tmp_path / "b" / ".hidden.jsonl", [{"id": "y", "text": "t"}])
    (tmp_path / "README.md").write_text("no corpus")
    found = results(tmp_path)
    assert [(r.file, r.line, r.document.id) for r in found if isinstance(r, ReadDocument)] == [
        ("a.jsonl", 1, "a"),
        ("b/10.csv", 2, "b10"),
        ("b/2.jsonl", 1, "b2"),
    ]
    said = [(r.file, r.line, r.reason) for r in found if isinstance(r, Rejection)]
    assert said == [
        ("a.jsonl", 2, "duplicate id, first on line 1"),
        ("b/10.csv", 3, "duplicate id, first on line 1 of a.jsonl"),
        ("b/2.jsonl", 2, "not a JSON object but int"),
    ]
    assert [r.file for r in results(tmp_path, format="csv")] == ["", ""]
    by_glob = results(str(tmp_path / "b" / "*.jsonl"))
    assert [(r.file, r.line) for r in by_glob] == [
        (".hidden.jsonl", 1),
        ("2.jsonl", 1),
        ("2.jsonl", 2),
    ]
    assert len(results(str(tmp_path / "**" / "*.csv"))) == 2
    for nothing in (str(tmp_path / "*.parquet"), tmp_path / "none.jsonl"):
        with pytest.raises(InputError):
            open_corpus(nothing)
    with pytest.raises(InputError, match="not in its name"):
        open_corpus(str(tmp_path / "*.md"))


def test_a_beir_folder_is_its_corpus(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "corpus.jsonl", [{"_id": "1", "text": "t"}])
    write_jsonl(tmp_path / "queries.jsonl", [{"_id": "q", "text": "t"}])
    assert [d.id for d in documents(tmp_path)] == ["1"]


def test_the_survey_notices_every_change(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "c.jsonl", [{"id": "1", "text": "t", "body": "b"}])
    first = open_corpus(path).survey()
    assert (first.records, first.files, first.bytes) == (1, 1, path.stat().st_size)
    assert first.modified == path.stat().st_mtime
    moved = tmp_path / "other.jsonl"
    moved.write_bytes(path.read_bytes())
    assert open_corpus(moved).survey().sha256 == first.sha256
    others = {
        open_corpus(path, FieldMapping.parse(text="body")).survey().sha256,
        open_corpus(path, FieldMapping.parse(metadata="a:int=b")).survey().sha256,
        open_corpus(tmp_path).survey().sha256,
    }
    moved.write_bytes(path.read_bytes() + b"\n")
    others.add(open_corpus(moved).survey().sha256)
    os.utime(moved, (2e9, 2e9))
    newest = open_corpus(tmp_path).survey()
    assert newest.modified == 2e9
    others.add(newest.sha256)
    assert len(others | {first.sha256}) == 6


def test_standard_input_is_kept_under_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEELYARD_CACHE", str(tmp_path))
    data = b"id,text\n1,one\n"
    path = spool_input("csv", io.BytesIO(data))
    os.utime(path, (1e9, 1e9))
    assert spool_input("csv", io.BytesIO(data)) == path
    assert path.stat().st_mtime == 1e9
    assert [d.text for d in documents(path)] == ["one"]
    packed = spool_input(None, io.BytesIO(gzip.compress(b'{"id": 1, "text": "t"}')))
    assert packed.name.endswith(".jsonl.gz")
    assert [d.text for d in documents(packed)] == ["t"]
    with pytest.raises(InputError, match="empty"):
        spool_input(None, io.BytesIO(b""))
    assert sorted(file.name for file in (tmp_path / "stdin").iterdir()) == sorted(
        [path.name, packed.name]
    )


def test_hugging_face_data_sets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"id": str(n), "text": f"text {n}", "price": float(n)} for n in range(300)]
    rows += [{"id": "7", "text": "again", "price": 1.0}, {"id": "x", "text": None, "price": 1.0}]
    data = datasets.Dataset.from_list(rows)
    data.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": data, "test": data.select(range(3))}).save_to_disk(
        tmp_path / "two"
    )
    found = results(f"hf:{tmp_path / 'one'}", "price:float")
    good = [r for r in found if isinstance(r, ReadDocument)]
    assert [(r.line, r.document.id) for r in good] == [(n + 1, str(n)) for n in range(300)]
    assert good[5].document.metadata == {"price": 5.0}
    assert rejected(found) == [(301, "duplicate id, first on line 8"), (302, "empty text")]
    assert len(documents(f"hf:{tmp_path / 'two'}?split=test")) == 3
    for wrong, said in (
        (f"hf:{tmp_path / 'two'}", "has the splits train, test"),
        (f"hf:{tmp_path / 'two'}?split=dev", "has the splits train, test"),
        (f"hf:{tmp_path / 'one'}?colour=red", "cannot read"),
        ("hf:", "cannot read"),
        (str(tmp_path / "one"), "write hf:"),
    ):
        with pytest.raises(InputError, match=said):
            open_corpus(wrong)
    with pytest.raises(InputError, match="has no column sku"):
        open_corpus(f"hf:{tmp_path / 'one'}", FieldMapping.parse(id="sku"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"text": "a,,b"}, "cannot read the text fields"),
        ({"text": "a,a"}, "cannot read the text fields"),
        ({"id": ""}, "has no name"),
        ({"metadata": "a:int="}, "cannot read the metadata field"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(options: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        FieldMapping.parse(**options)


def test_a_header_that_cannot_be_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    for data, said in (
        (b"id,text,text\n", "the column 'text' twice"),
        (b"id,caf\xe9\n", "line 1: no header: not UTF-8"),
        (b"a,b\n", "has no column _id or id"),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match=said):
            results(path)
    path.write_bytes(b"\xef\xbb\xbfid , text\r\n1,t\r\n\r\n2,u\r\n")
    assert [(d.id, d.text) for d in documents(path)] == [("1", "t"), ("2", "u")]


def test_read_lines_names_what_it_leaves_out(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(b"\xef\xbb\xbfone\r\n" + b"x" * 50 + b"\nthree")
    lines = [(line.number, line.data, line.too_long) for line in read_lines(path, 20)]
    assert lines == [(1, b"one", False), (2, b"", True), (3, b"three", False)]
