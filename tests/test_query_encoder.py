"""Look-ups: equal to a plain loop, and calm whatever the query."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steelyard.encoders.pack.files import write_pack
from steelyard.encoders.pack.query_tokenizer import QueryTokenizer
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.encoders.query.tables import table_tensors
from steelyard.errors import InputError
from tests.conftest import (
    DIMS,
    WORDS,
    dense_arm,
    sparse_arm,
    tiny_metadata,
    tiny_rows,
    tiny_weights,
)

MEGABYTE = "heavy " * 170_000
HOSTILE = [
    "",
    " \t\n",
    "日本語だけ",
    "🙂🙃 ",
    "\x00\x01\x02\x7f",
    "שלום heavy עולם",
    "\u202eheavy\u202c",
    "[CLS] [SEP] [UNK] [PAD]",
    "heavy \ud800 arm",
    "\ufffe\uffff",
    "e\u0301",
    '\'; DROP TABLE documents; -- "*:*"',
    MEGABYTE,
    "!" * 5000,
]


def plain_loop(encoder: QueryEncoder, text: str) -> tuple[list[float], dict[int, float]]:
    """The definition, one token at a time."""
    rows, weights = tiny_rows(15), tiny_weights(15)
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    ids = encoder.tokenizer.encode(text, add_special_tokens=False).ids[:512]
    total = np.zeros(DIMS)
    counts: dict[int, float] = {}
    for token in ids:
        if token > 3:
            total = total + rows[token]
            counts[token] = counts.get(token, 0.0) + float(weights[token])
    length = float(np.sqrt((total * total).sum()))
    return list(total / length if length else total), counts


def check_against_loop(encoder: QueryEncoder, texts: list[str]) -> None:
    batch = encoder.encode_query(texts)
    for position, text in enumerate(texts):
        dense, counts = plain_loop(encoder, text)
        one = encoder.encode_query(text)
        for found, row in ((batch, position), (one, 0)):
            np.testing.assert_allclose(found.dense[row], dense, atol=1e-5)
            ids, weights = found.sparse.row(row)
            assert ids.tolist() == sorted(counts)
            np.testing.assert_allclose(weights, [counts[i] for i in ids.tolist()], rtol=1e-5)
            assert bool(found.empty[row]) == (not counts)
    assert np.isfinite(batch.dense).all()


def test_hostile_queries(tiny_encoder: QueryEncoder) -> None:
    check_against_loop(tiny_encoder, HOSTILE)
    flags = tiny_encoder.encode_query(HOSTILE)
    assert flags.empty[[0, 1, 2, 3, 7]].all()
    assert flags.truncated.tolist() == [len(text) > 4000 for text in HOSTILE]
    assert bool(tiny_encoder.encode_query(MEGABYTE).truncated[0])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(
        st.one_of(
            st.text(),
            st.lists(st.sampled_from([*WORDS, "ARMS", "unknown"])).map(" ".join),
        ),
        max_size=6,
    )
)
def test_batch_single_and_loop_agree(tiny_encoder: QueryEncoder, texts: list[str]) -> None:
    check_against_loop(tiny_encoder, texts)


def test_no_queries_at_all(tiny_encoder: QueryEncoder) -> None:
    encoded = tiny_encoder.encode_query([])
    assert encoded.dense.shape == (0, DIMS)
    assert len(encoded) == len(encoded.sparse) == 0


def test_one_string_is_not_many_queries(tiny_encoder: QueryEncoder) -> None:
    with pytest.raises(InputError, match="one string"):
        tiny_encoder.encode_dense("heavy")
    with pytest.raises(InputError, match="one string"):
        tiny_encoder.encode_sparse("heavy")


def test_repeated_words_count(tiny_encoder: QueryEncoder) -> None:
    encoded = tiny_encoder.encode_query(["heavy heavy light", "heavy light"])
    ids, weights = encoded.sparse.row(0)
    assert ids.tolist() == [4, 5]
    np.testing.assert_allclose(weights, [1.0, 0.6])
    assert not np.allclose(encoded.dense[0], encoded.dense[1])


def test_a_query_is_lower_cased(tiny_encoder: QueryEncoder) -> None:
    encoded = tiny_encoder.encode_query(["HEAVY Arms", "heavy arms"])
    np.testing.assert_array_equal(encoded.dense[0], encoded.dense[1])


def test_each_arm_has_its_own_prefix_and_limit(
    tmp_path: Path, tiny_tokenizer: QueryTokenizer
) -> None:
    rows = tiny_tokenizer.rows
    write_pack(
        tmp_path / "pack",
        tiny_metadata(
            tiny_tokenizer,
            dense=dense_arm(tiny_tokenizer, query_max_tokens=2),
            sparse=sparse_arm(tiny_tokenizer, text_prefix="the "),
        ),
        tiny_tokenizer.text,
        table_tensors(tiny_rows(rows), "float32", "default"),
        tiny_weights(rows),
    )
    encoder = QueryEncoder.load(tmp_path / "pack")
    for encoded in (encoder.encode_query(["heavy arm a"]), encoder.encode_query("heavy arm a")):
        expected = tiny_rows(rows)[[4, 6]].sum(axis=0)
        expected = expected / np.linalg.norm(expected)
        np.testing.assert_allclose(encoded.dense[0], expected, rtol=1e-5)
        assert encoded.sparse.row(0)[0].tolist() == [4, 6, 11, 12]
        assert encoded.truncated.tolist() == [True]


def test_instructions_are_chosen_by_name(tmp_path: Path, tiny_tokenizer: QueryTokenizer) -> None:
    rows = tiny_tokenizer.rows
    tables = {"web": "Find web pages", "claims": "Verify the claim"}
    write_pack(
        tmp_path / "pack",
        tiny_metadata(
            tiny_tokenizer, dense=dense_arm(tiny_tokenizer, tables=tables, default_table="web")
        ),
        tiny_tokenizer.text,
        {
            **table_tensors(tiny_rows(rows), "float32", "web"),
            **table_tensors(-tiny_rows(rows), "float32", "claims"),
        },
        tiny_weights(rows),
    )
    encoder = QueryEncoder.load(tmp_path / "pack")
    web, claims = (encoder.encode_query(["arm"], instruction=name) for name in tables)
    np.testing.assert_array_equal(web.dense, -claims.dense)
    np.testing.assert_array_equal(web.dense, encoder.encode_query(["arm"]).dense)
    with pytest.raises(InputError, match="no instruction 'news'") as caught:
        encoder.encode_query("arm", instruction="news")
    assert caught.value.hint == "known: claims, web"


def test_the_table_stays_on_disk(tiny_encoder: QueryEncoder) -> None:
    table = tiny_encoder.tables["default"].rows
    assert isinstance(table.base, np.memmap)
    assert not table.flags.writeable
