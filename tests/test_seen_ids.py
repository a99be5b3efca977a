"""The compact set of ids against a dictionary."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from steelyard.indexer.reading import seen_ids
from steelyard.indexer.reading.places import Places
from steelyard.indexer.reading.seen_ids import SeenIds


@given(st.lists(st.tuples(st.text(max_size=3), st.integers(1, 2**64 - 1)), max_size=300))
def test_it_is_a_dictionary_whose_first_value_stays(entries: list[tuple[str, int]]) -> None:
    # Lone surrogates are refused before they come here.
    entries = [(i.encode(errors="replace").decode(), number) for i, number in entries]
    seen, model = SeenIds(), dict[str, int]()
    for identifier, number in entries:
        assert seen.add(identifier, number) == model.get(identifier, 0)
        model.setdefault(identifier, number)
        assert seen.get(identifier) == model[identifier]
    assert len(seen) == len(model)
    assert all(seen.get(identifier) == number for identifier, number in model.items())


LAST_SLOTS = (63, 80, 101, 127)
"""Of a table's first sizes: what is at home there has to wrap around."""


@given(st.lists(st.tuples(st.sampled_from(LAST_SLOTS), st.integers(0, 150)), max_size=200))
def test_a_table_keeps_all_while_it_grows_and_wraps(entries: list[tuple[int, int]]) -> None:
    table, model = seen_ids._Table(), dict[tuple[int, int], int]()
    for number, (home, low) in enumerate(entries, start=1):
        high = home * seen_ids._PARTITIONS
        assert table.add(high, low, number) == model.get((high, low), 0)
        model.setdefault((high, low), number)
    assert table.used == len(model)
    assert all(table.get(high, low) == number for (high, low), number in model.items())


def test_memory_for_each_id() -> None:
    seen, count = SeenIds(), 200_000
    for number in range(1, count + 1):
        seen.add(f"a rather long identifier, as URLs are: {number}", number)
    assert len(seen) == count
    assert seen.nbytes / count < 24 / 0.8 * 1.25 * 1.02
    assert all(
        seen.get(f"a rather long identifier, as URLs are: {n}") == n for n in (1, 777, count)
    )
    assert seen.get("another") == 0


def test_places_name_the_file_and_its_line() -> None:
    places = Places()
    seen = [(f, line, places.number(f, line)) for f in ("a", "b", "c") for line in (1, 2, 9)]
    assert [number for *_, number in seen] == [1, 2, 9, 10, 11, 18, 19, 20, 27]
    for file, line, number in seen:
        assert places.show(number, file) == f"line {line}"
        assert places.show(number, "z") == f"line {line} of {file}"
