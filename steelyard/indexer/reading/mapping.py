"""Which fields of a record make a document: ``--id sku --text description,body``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from steelyard.errors import InputError
from steelyard.indexer.reading.metadata_fields import parse_declaration

PARENT, METADATA = "parent_id", "metadata"


@dataclass(frozen=True, slots=True)
class FieldMapping:
    """Names of a record's fields.

    A name may lead into an object (``offer.price``). Of a CSV or TSV file without a header the
    names are the columns' numbers, from 1.

    Attributes:
        id: None is ``_id``, else ``id``.
        title: the empty string: there is none.
        text: several are joined by line ends, in this order; missing ones are left out.
        metadata: declared metadata field to the name that a record has for it, where they differ.
    """

    id: str | None = None
    title: str = "title"
    text: tuple[str, ...] = ("text",)
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(
        cls,
        *,
        id: str | None = None,
        title: str | None = None,
        text: str | None = None,
        metadata: str = "",
    ) -> FieldMapping:
        """From what was written on the command line; None is the default.

        Args:
            id, title: a name.
            text: names with commas between them.
            metadata: ``name:type`` or ``name:type=source``, with commas between them.

        Raises:
            InputError: a name is missing or doubled, or a declaration cannot be read.
        """
        texts = ("text",) if text is None else tuple(part.strip() for part in text.split(","))
        if not all(texts) or len(set(texts)) != len(texts):
            raise InputError(f"cannot read the text fields {text!r}", "write name or name,name")
        if id == "":
            raise InputError("the id's field has no name", "write --id NAME")
        sources = {f.name: f.source for f in parse_declaration(metadata) if f.source != f.name}
        return cls(id, "title" if title is None else title, texts, sources)

    @property
    def ids(self) -> tuple[str, ...]:
        """Names under which the id is looked for, in order."""
        return ("_id", "id") if self.id is None else (self.id,)

    @property
    def headerless(self) -> bool:
        """Whether columns are numbered instead of named."""
        return self.id is not None and self.id.isdecimal()

    def columns(self, fields: Mapping[str, str]) -> set[str]:
        """All names that may be looked up, given the declared metadata fields.

        Of a name into an object, every part from the left is one.
        """
        names = {*self.ids, self.title, *self.text, PARENT, METADATA}
        names |= {self.metadata.get(name, name) for name in fields}
        names |= set(self.metadata.values())
        for name in list(names):
            parts = name.split(".")
            names |= {".".join(parts[:count]) for count in range(1, len(parts))}
        return names

    def check_columns(self, columns: list[str], where: str) -> None:
        """Refuse a table that lacks what every document needs, or what was named.

        Raises:
            InputError: with the columns that there are.
        """
        there = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
        if not any(_within(name, columns) for name in self.ids):
            raise InputError(
                f"{where} has no column {' or '.join(self.ids)}",
                f"name it with --id; columns: {there}",
            )
        optional = self.text == ("text",) and _within(self.title, columns)
        for name in () if optional else self.text:
            if not _within(name, columns):
                raise InputError(
                    f"{where} has no column {name}", f"name it with --text; columns: {there}"
                )
        wanted = [] if self.title in ("", "title") else [("--title", self.title)]
        wanted += [("--metadata", source) for source in self.metadata.values()]
        for option, name in wanted:
            if not _within(name, columns):
                raise InputError(
                    f"{where} has no column {name}", f"see {option}; columns: {there}"
                )

    def to_json(self) -> dict[str, Any]:
        """For hashes."""
        return asdict(self)


def look_up(value: Mapping[str, Any], name: str) -> Any:
    """A field by its name, or by the path to it; None where there is none."""
    if name in value or "." not in name:
        return value.get(name)
    head, _, rest = name.partition(".")
    inner = value.get(head)
    return look_up(inner, rest) if isinstance(inner, Mapping) else None


def _within(name: str, columns: list[str]) -> bool:
    return name in columns or name.partition(".")[0] in columns
