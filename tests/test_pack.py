"""Query packs on disk: whole or refused, with the reason."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steelyard.encoders.pack.convert import convert_pack
from steelyard.encoders.pack.files import DATA_FILES, read_metadata, read_pack, write_pack
from steelyard.encoders.pack.query_tokenizer import QueryTokenizer, query_tokenizer
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.encoders.query.tables import quantise_int8, table_tensors
from steelyard.errors import InputError, PackError
from tests.conftest import dense_arm, sparse_arm, tiny_metadata, tiny_rows, tiny_weights


def test_a_pack_comes_back_as_it_was_written(
    tiny_pack: Path, tiny_tokenizer: QueryTokenizer
) -> None:
    contents = read_pack(tiny_pack)
    assert contents.tokenizer_json == tiny_tokenizer.text
    table = contents.tables["table.default"]
    assert isinstance(table, np.memmap)
    np.testing.assert_array_equal(table, tiny_rows(tiny_tokenizer.rows))
    np.testing.assert_array_equal(contents.query_weights, tiny_weights(tiny_tokenizer.rows))
    assert contents.metadata.pack_id in (tiny_pack / "README.md").read_text(encoding="utf-8")


def test_the_same_content_has_the_same_pack_id(
    tmp_path: Path, tiny_pack: Path, tiny_tokenizer: QueryTokenizer
) -> None:
    again = write_pack(
        tmp_path / "again",
        tiny_metadata(tiny_tokenizer),
        tiny_tokenizer.text,
        table_tensors(tiny_rows(tiny_tokenizer.rows), "float32", "default"),
        tiny_weights(tiny_tokenizer.rows),
    )
    assert again.pack_id == read_metadata(tiny_pack).pack_id


@pytest.mark.parametrize("name", DATA_FILES)
@pytest.mark.parametrize("damage", ["missing", "truncated", "longer", "flipped"])
def test_a_damaged_file_is_refused(tiny_pack: Path, name: str, damage: str) -> None:
    file = tiny_pack / name
    data = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(data[:-3])
    elif damage == "longer":
        file.write_bytes(data + b"xx")
    else:
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    with pytest.raises(PackError, match=name.replace(".", r"\.")) as caught:
        QueryEncoder.load(tiny_pack)
    assert caught.value.hint


def test_without_verification_a_flipped_number_passes_but_a_wrong_size_does_not(
    tiny_pack: Path,
) -> None:
    file = tiny_pack / "dense.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    QueryEncoder.load(tiny_pack, verify=False)
    file.write_bytes(data[:-4])
    with pytest.raises(PackError, match="bytes"):
        QueryEncoder.load(tiny_pack, verify=False)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["name"], "other", "was changed"),
        (["dense", "dims"], 4, "was changed"),
        (["dense", "dims"], "eight", "expected int, found str"),
        (["dense", "dims"], True, "expected int, found bool"),
        (["sparse", "k1"], [1], "expected float, found list"),
        (["format"], 2, "pack format 2, this version reads format 1"),
        (["surprise"], 1, "unknown field 'surprise'"),
        (["dense"], None, "expected an object, found NoneType"),
    ],
)
def test_a_hand_edited_pack_json_is_refused(
    tiny_pack: Path, path: list[str], value: Any, message: str
) -> None:
    file = tiny_pack / "pack.json"
    edited = json.loads(file.read_text(encoding="utf-8"))
    inner = edited
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    file.write_text(json.dumps(edited), encoding="utf-8")
    with pytest.raises(PackError, match=message):
        QueryEncoder.load(tiny_pack)


def test_numbers_and_texts_that_json_has_not_are_refused(tiny_pack: Path) -> None:
    file = tiny_pack / "pack.json"
    text = file.read_text(encoding="utf-8")
    deep = "[" * 100_000
    for edited in (
        text.replace('"scale": 100.0', '"scale": NaN'),
        text.replace('"name": "tiny"', '"name": "\\ud800"'),
        text.replace('"name": "tiny"', f'"name": {deep}'),
    ):
        assert edited != text
        file.write_text(edited, encoding="utf-8")
        with pytest.raises(PackError, match="is not JSON"):
            QueryEncoder.load(tiny_pack)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format": 1}'])
def test_a_pack_json_that_is_none_is_refused(tiny_pack: Path, text: bytes) -> None:
    (tiny_pack / "pack.json").write_bytes(text)
    with pytest.raises(PackError):
        QueryEncoder.load(tiny_pack)


def test_no_pack_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="no query pack"):
        QueryEncoder.load(tmp_path / "nothing")
    with pytest.raises(PackError, match=r"no pack\.json"):
        QueryEncoder.load(tmp_path)


def test_a_table_of_another_size_than_the_tokenizer_is_refused(
    tmp_path: Path, tiny_tokenizer: QueryTokenizer
) -> None:
    rows = tiny_tokenizer.rows + 3
    metadata = tiny_metadata(tiny_tokenizer, dense=dense_arm(tiny_tokenizer, rows=rows))
    path = tmp_path / "pack"
    tensors = table_tensors(tiny_rows(rows), "float32", "default")
    write_pack(path, metadata, tiny_tokenizer.text, tensors, tiny_weights(rows))
    with pytest.raises(PackError, match="18 rows, the tokenizer 15 tokens"):
        QueryEncoder.load(path)


def test_a_tensor_that_does_not_fit_pack_json_is_never_written(
    tmp_path: Path, tiny_tokenizer: QueryTokenizer
) -> None:
    tensors = table_tensors(tiny_rows(tiny_tokenizer.rows)[:, :4], "float32", "default")
    with pytest.raises(PackError, match=r"float32\[15, 4\], pack\.json says float32\[15, 8\]"):
        write_pack(
            tmp_path / "pack",
            tiny_metadata(tiny_tokenizer),
            tiny_tokenizer.text,
            tensors,
            tiny_weights(tiny_tokenizer.rows),
        )
    assert list(tmp_path.iterdir()) == []


def test_writing_over_something(
    tmp_path: Path, tiny_pack: Path, tiny_tokenizer: QueryTokenizer
) -> None:
    arguments = (
        tiny_metadata(tiny_tokenizer, name="newer"),
        tiny_tokenizer.text,
        table_tensors(tiny_rows(tiny_tokenizer.rows), "float32", "default"),
        tiny_weights(tiny_tokenizer.rows),
    )
    with pytest.raises(InputError, match="already holds a query pack"):
        write_pack(tiny_pack, *arguments)
    write_pack(tiny_pack, *arguments, overwrite=True)
    assert read_metadata(tiny_pack).name == "newer"
    other = tmp_path / "holiday"
    other.mkdir()
    (other / "photo.jpg").write_bytes(b"precious")
    with pytest.raises(InputError, match="is not a query pack"):
        write_pack(other, *arguments, overwrite=True)
    assert (other / "photo.jpg").read_bytes() == b"precious"
    assert {entry.name for entry in tmp_path.iterdir()} == {"tiny", "holiday"}


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-3), ("int8", 2e-2)])
def test_a_smaller_table_stays_in_the_same_space(
    tmp_path: Path, tiny_pack: Path, dtype: str, tolerance: float
) -> None:
    whole = read_metadata(tiny_pack)
    smaller = convert_pack(tiny_pack, tmp_path / dtype, dtype)
    assert smaller.spaces == whole.spaces
    assert smaller.pack_id != whole.pack_id
    texts = ["heavy arms", "the query !", ""]
    a = QueryEncoder.load(tiny_pack).encode_query(texts)
    b = QueryEncoder.load(tmp_path / dtype).encode_query(texts)
    np.testing.assert_allclose(a.dense, b.dense, atol=tolerance)
    np.testing.assert_array_equal(a.sparse.weights, b.sparse.weights)
    one = QueryEncoder.load(tmp_path / dtype).encode_query("heavy arms")
    np.testing.assert_allclose(one.dense[0], b.dense[0], atol=1e-6)


def test_int8_rows_are_within_half_a_step() -> None:
    rows = tiny_rows(50)
    rows[3] = 0
    quantised, scale = quantise_int8(rows)
    error = np.abs(quantised * scale[:, None] - rows)
    assert (error <= scale[:, None] / 2 + 1e-7).all()
    assert scale[3] == 0


def test_spaces_depend_on_documents_only(tiny_tokenizer: QueryTokenizer) -> None:
    base = tiny_metadata(tiny_tokenizer)
    spaces = base.sealed({}).spaces

    def sealed(**changes: Any) -> Any:
        return tiny_metadata(tiny_tokenizer, **changes).sealed({}).spaces

    assert sealed(name="other", provenance={"seed": 1}) == spaces
    assert sealed(dense=dense_arm(tiny_tokenizer, dtype="int8")) == spaces
    assert sealed(sparse=sparse_arm(tiny_tokenizer, documents=99)) == spaces
    moved = replace(base.document_encoder, model="another/folder")
    assert sealed(document_encoder=moved) == spaces
    for change in ({"weights": "1" * 64}, {"pooling": "cls"}, {"max_length": 65}):
        other = replace(base.document_encoder, **change)
        assert sealed(document_encoder=other).dense != spaces.dense
        assert sealed(document_encoder=other).sparse == spaces.sparse
    for setting in ({"k1": 0.9}, {"b": 0.4}, {"avgdl": 5.0}, {"scale": 50.0}):
        other_sparse = sealed(sparse=sparse_arm(tiny_tokenizer, **setting))
        assert other_sparse.sparse != spaces.sparse
        assert other_sparse.dense == spaces.dense


def test_the_query_tokenizer_is_stripped_and_lower_cases(tiny_tokenizer: QueryTokenizer) -> None:
    text = json.loads(tiny_tokenizer.text)
    assert text["normalizer"]["normalizers"][0] == {"type": "Lowercase"}
    assert text["post_processor"] is None
    assert query_tokenizer(tiny_tokenizer.text).text == tiny_tokenizer.text
    assert tiny_tokenizer.special_ids == [0, 1, 2, 3]
    cased = query_tokenizer(json.dumps({**text, "normalizer": None}), lowercase=False)
    assert json.loads(cased.text)["normalizer"] is None
    with pytest.raises(InputError, match=r"unreadable tokenizer\.json"):
        query_tokenizer("{}")
