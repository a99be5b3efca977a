"""The filter tree over metadata held in memory: which documents satisfy it."""

from __future__ import annotations

import operator
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from steelyard.plugin.filters import And, Eq, Exists, Filter, In, Not, Or, Range, check_filter
from steelyard.types import MetadataValue

Mask: TypeAlias = NDArray[np.bool_]

_NUMPY_TYPES: dict[str, Any] = {"int": np.int64, "float": np.float64, "bool": np.bool_}
_BOUNDS: tuple[tuple[str, Callable[[Any, Any], Any]], ...] = (
    ("gte", operator.ge),
    ("gt", operator.gt),
    ("lte", operator.le),
    ("lt", operator.lt),
)


class FilterMasks:
    """Masks over n documents; a field is read when a filter first names it.

    A document without the field satisfies no condition on it, so ``Not`` of one holds.

    Args:
        fields: declared fields and their types.
        count: n.
        read: a field's values, one a document, None where it has none.
    """

    def __init__(
        self,
        fields: Mapping[str, str],
        count: int,
        read: Callable[[str], Sequence[MetadataValue]],
    ) -> None:
        self._fields, self._count, self._read = fields, count, read
        self._columns: dict[str, _Words | _Numbers] = {}

    def mask(self, filter: Filter) -> Mask:
        """Where the filter holds, bool ``[n]``.

        Raises:
            InputError: a filter that cannot be: see ``check_filter``.
        """
        check_filter(filter, self._fields)
        return self._mask(filter)

    def _mask(self, node: Filter) -> Mask:
        if isinstance(node, And | Or):
            join = np.logical_and if isinstance(node, And) else np.logical_or
            mask: Mask = join.reduce([self._mask(clause) for clause in node.clauses])
            return mask
        if isinstance(node, Not):
            return ~self._mask(node.clause)
        column = self._column(node.field)
        if isinstance(node, Exists):
            return column.present.copy()
        if isinstance(node, Eq):
            return column.among([node.value])
        if isinstance(node, In):
            return column.among(node.values)
        return self._range(column, node)

    def _range(self, column: _Words | _Numbers, node: Range) -> Mask:
        bounds = [
            (compare, getattr(node, name))
            for name, compare in _BOUNDS
            if getattr(node, name) is not None
        ]
        mask: Mask = np.logical_and.reduce([column.compare(*bound) for bound in bounds])
        return mask

    def _column(self, field: str) -> _Words | _Numbers:
        if field not in self._columns:
            values = self._read(field)
            if len(values) != self._count:
                raise ValueError(f"{len(values)} values of {field} for {self._count} documents")
            kind = self._fields[field]
            made = _words(values) if kind == "keyword" else _numbers(values, _NUMPY_TYPES[kind])
            self._columns[field] = made
        return self._columns[field]


@dataclass(frozen=True, slots=True)
class _Numbers:
    """A column of numbers or truth values; 0 where there is none."""

    values: NDArray[Any]
    present: Mask

    def among(self, values: Sequence[Any]) -> Mask:
        mask = np.zeros(len(self.values), dtype=np.bool_)
        for value in values:
            mask |= self.values == value
        return mask & self.present

    def compare(self, compare: Callable[[Any, Any], Any], bound: Any) -> Mask:
        mask: Mask = compare(self.values, bound) & self.present
        return mask


@dataclass(frozen=True, slots=True)
class _Words:
    """A column of strings as places in the sorted list of them; -1 where there is none."""

    words: list[str]
    places: NDArray[np.int64]

    @property
    def present(self) -> Mask:
        mask: Mask = self.places >= 0
        return mask

    def among(self, values: Sequence[Any]) -> Mask:
        wanted = [
            place
            for value in set(values)
            if (place := bisect_left(self.words, value)) < len(self.words)
            and self.words[place] == value
        ]
        return np.isin(self.places, wanted)

    def compare(self, compare: Callable[[Any, Any], Any], bound: Any) -> Mask:
        # The words below a bound end where bisecting puts it.
        if compare in (operator.ge, operator.lt):
            below = self.places < bisect_left(self.words, bound)
        else:
            below = self.places < bisect_right(self.words, bound)
        mask: Mask = below if compare in (operator.lt, operator.le) else ~below
        return mask & self.present


def _numbers(values: Sequence[Any], dtype: Any) -> _Numbers:
    present = np.array([value is not None for value in values], dtype=np.bool_)
    filled = [0 if value is None else value for value in values]
    return _Numbers(np.array(filled, dtype=dtype), present)


def _words(values: Sequence[Any]) -> _Words:
    words = sorted({value for value in values if value is not None})
    place_of = {word: place for place, word in enumerate(words)}
    places = [-1 if value is None else place_of[value] for value in values]
    return _Words(words, np.array(places, dtype=np.int64))
