"""``steelyard upsert`` and ``delete``: the published index, changed while it is searched."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steelyard.cli.options import (
    AdapterMovedOption,
    Corpus,
    DeviceOption,
    EngineOption,
    FilterOption,
    FormatOption,
    MappingIdOption,
    MappingTextOption,
    MappingTitleOption,
    MaxRejectedOption,
    ModelMovedOption,
    PackOption,
    PrecisionOption,
)
from steelyard.cli.output import JsonOption, RichProgress, print_pairs, write_json
from steelyard.errors import InputError, RejectedDocumentsError

if TYPE_CHECKING:
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.indexer.changes.live import Deleted, LiveIndex

REJECTED_EXIT = RejectedDocumentsError.exit_code
"""Done, but some documents were rejected."""

_IDS_AT_ONCE = 5000
_SHOWN = 10

WaitOption = Annotated[
    float, typer.Option(min=0, help="Seconds to wait for another writer of the same index.")
]


def upsert(
    corpus: Corpus,
    pack: PackOption,
    to: EngineOption,
    metadata: Annotated[
        str | None,
        typer.Option(
            help="Metadata fields to read, e.g. 'price:float=cost'; default: those of the index."
        ),
    ] = None,
    id: MappingIdOption = None,
    title: MappingTitleOption = None,
    text: MappingTextOption = None,
    format: FormatOption = None,
    model: ModelMovedOption = None,
    adapter: AdapterMovedOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = None,
    rejected: Annotated[
        Path, typer.Option(metavar="FILE", help="Where records go that are no documents.")
    ] = Path("rejected.jsonl"),
    max_rejected: MaxRejectedOption = None,
    wait: WaitOption = 60.0,
    json: JsonOption = None,
) -> None:
    """Write documents into the published index, new ones or in place of older ones.

    Searches see them when the command returns. Exit code 6: some were rejected.
    """
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.indexer.changes.upsert_job import RejectedLines, upsert_corpus
    from steelyard.indexer.reading.mapping import FieldMapping
    from steelyard.indexer.reading.metadata_fields import parse_fields
    from steelyard.indexer.reading.readers import open_corpus

    mapping = FieldMapping.parse(id=id, title=title, text=text, metadata=metadata or "")
    fields = None if metadata is None else parse_fields(metadata)
    queries, progress = QueryEncoder.load(pack), RichProgress()
    tower: dict[str, Any] = {
        "model": model,
        "adapter": adapter,
        "precision": precision,
        "device": device,
    }
    with _live(to, queries, tower, progress, wait) as live:
        source = open_corpus(corpus, mapping, format)
        with progress.stage("upsert documents") as advance:
            lines = RejectedLines(rejected, max_rejected)
            report = upsert_corpus(source, live, lines, fields, advance)
    refused = f"{report.rejected:,}" + (f" (see {rejected})" if report.rejected else "")
    print_pairs(
        {
            "read": f"{report.read:,}",
            "documents": f"{report.documents:,}",
            "passages": f"{report.rows:,}",
            "rejected": refused,
            "generation": report.generation,
        }
    )
    write_json(asdict(report), json)
    if report.rejected:
        raise typer.Exit(REJECTED_EXIT)


def delete(
    to: EngineOption,
    ids: Annotated[list[str] | None, typer.Argument(metavar="IDS", help="Of documents.")] = None,
    ids_from: Annotated[
        str | None, typer.Option(metavar="FILE", help="A file with an id a line; - for stdin.")
    ] = None,
    parent: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Everything of this parent_id.")
    ] = None,
    filter: FilterOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    pack: Annotated[
        Path | None,
        typer.Option(
            metavar="PACK",
            help="Query pack; only needed to finish an upsert that was interrupted before.",
        ),
    ] = None,
    model: ModelMovedOption = None,
    adapter: AdapterMovedOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = None,
    wait: WaitOption = 60.0,
    json: JsonOption = None,
) -> None:
    """Delete documents of the published index: by id, by parent, or by a condition.

    Whole documents go, with all their passages. Searches miss them when the command returns.
    """
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.indexer.changes.log import DeleteFilter
    from steelyard.plugin.filter_json import parse_filter, read_filter

    ways = {"IDS": ids, "--ids-from": ids_from, "--parent": parent, "--filter": filter}
    given = [name for name, value in ways.items() if value]
    if len(given) != 1:
        raise InputError(
            f"what to delete is said in {len(given)} ways{': ' * bool(given)}{', '.join(given)}",
            f"give one of {', '.join(ways)}",
        )
    if filter:
        parse_filter(filter)
    queries, progress = None if pack is None else QueryEncoder.load(pack), RichProgress()
    tower: dict[str, Any] = {
        "model": model,
        "adapter": adapter,
        "precision": precision,
        "device": device,
    }
    found: list[Deleted] = []
    with (
        _live(to, queries, tower, progress, wait) as live,
        progress.stage("find documents" if dry_run else "delete documents") as advance,
    ):
        if filter:
            change = DeleteFilter(read_filter(filter))
            found.append(live.delete_matching(change, dry_run=dry_run))
            advance(len(found[-1].ids))
        elif parent:
            found.append(live.delete_parents(parent, dry_run=dry_run))
            advance(len(found[-1].ids))
        else:
            named = iter(ids or _lines(ids_from or ""))
            while part := list(islice(named, _IDS_AT_ONCE)):
                found.append(live.delete(part, dry_run=dry_run))
                advance(len(part))
    _tell(found, dry_run, json)


def _tell(found: Sequence[Deleted], dry_run: bool, json: Path | None) -> None:
    gone = [identifier for part in found for identifier in part.ids]
    unknown = [identifier for part in found for identifier in part.unknown]
    rows = sum(part.rows for part in found)
    pairs: dict[str, Any] = {
        "would delete" if dry_run else "deleted": f"{len(gone):,}",
        "passages": f"{rows:,}",
    }
    if unknown:
        pairs["not there"] = f"{len(unknown):,}: {', '.join(unknown[:_SHOWN])}"
    if dry_run and gone:
        pairs["documents"] = ", ".join(gone[:_SHOWN]) + (" ..." if len(gone) > _SHOWN else "")
    if found:
        pairs["generation"] = found[-1].generation
    print_pairs(pairs)
    result = {
        "deleted": 0 if dry_run else len(gone),
        "found": len(gone),
        "rows": rows,
        "ids": gone,
        "unknown": unknown,
        "dry_run": dry_run,
        "generation": found[-1].generation if found else None,
        "replayed": sum(part.replayed for part in found),
        "sequence": found[-1].sequence if found else 0,
    }
    write_json(result, json)


@contextmanager
def _live(
    to: str,
    queries: QueryEncoder | None,
    tower: dict[str, Any],
    progress: RichProgress,
    wait: float,
) -> Iterator[LiveIndex]:
    """The published generation behind a URL."""
    from steelyard.indexer.changes.encoder import ChangeEncoder, PackChangeEncoder
    from steelyard.indexer.changes.live import LiveIndex
    from steelyard.indexer.records_place import records_of
    from steelyard.plugin.packs import check_spaces
    from steelyard.plugin.urls import open_engine

    def encoder(pack: QueryEncoder) -> ChangeEncoder:
        from steelyard.encoders.documents.from_pack import open_document_encoder

        return PackChangeEncoder(
            pack, lambda: open_document_encoder(pack, say=progress.say, **tower)
        )

    vocabulary = None if queries is None else queries.tokenizer
    engine = open_engine(to, must_exist=True, vocabulary=vocabulary)
    try:
        live = LiveIndex(
            engine,
            records_of(engine, to),
            None if queries is None else partial(encoder, queries),
            progress,
            wait=wait,
        )
        generation = live.generation()
        if queries is not None:
            check_spaces(
                queries.metadata.spaces,
                generation,
                f"give the pack that it was made with ({generation.pack_id})",
            )
        yield live
    finally:
        engine.close()


def _lines(path: str) -> Iterator[str]:
    """Ids, one a line; blank lines are none."""
    try:
        with sys.stdin if path == "-" else Path(path).open(encoding="utf-8") as stream:
            for line in stream:
                identifier = line.rstrip("\r\n")
                if identifier.strip():
                    yield identifier
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read the ids in {path}: {error}", "one id a line, UTF-8"
        ) from error
