"""Ids by parent and by filter, as calls without a connection: see ``requests``."""

from __future__ import annotations

from collections.abc import Sequence

from steelyard.errors import EngineError
from steelyard.plugin.filters import Filter
from steelyard.plugin.opensearch.bodies import MAX_WINDOW, Json
from steelyard.plugin.opensearch.filter import opensearch_filter
from steelyard.plugin.opensearch.layout import ID, PARENT
from steelyard.plugin.opensearch.reading import KEEP_ALIVE, WHOLE, close_point
from steelyard.plugin.opensearch.requests import Request, Steps
from steelyard.plugin.opensearch.searches import Searches, check_complete

_PARENTS = 10_000
_READ = {"filter_path": "hits.hits.sort,timed_out,_shards,error,status"}


def refresh(name: str) -> Steps[None]:
    """What was written is searchable from here on."""
    action = f"refresh {name}"
    answer = yield Request(action, "POST", f"/{name}/_refresh")
    if answer["_shards"]["failed"]:
        raise EngineError(f"cannot {action}: {answer['_shards']['failed']} shards failed")


def find(
    target: Searches, parents: Sequence[str] | None, filter: Filter | None
) -> Steps[list[str]]:
    """Ids of one moment, ascending, in pages that may be asked for twice."""
    name, layout = target.generation.name, target.layout
    if layout.adopted:
        raise EngineError(
            f"{name} was adopted: Steelyard does not look for parents in it",
            "change it by what wrote it",
        )
    conditions: list[Json] = []
    if filter is not None:
        conditions.append(opensearch_filter(filter, target.generation.fields, layout.fields))
    if parents is None:
        queries = [conditions]
    else:
        wanted = sorted(set(parents))
        parts = [wanted[i : i + _PARENTS] for i in range(0, len(wanted), _PARENTS)]
        queries = [[*conditions, {"terms": {PARENT: part}}] for part in parts]
    if not queries:
        return []
    yield from refresh(name)
    action = f"find documents of {name}"
    opened = yield Request(
        action,
        "POST",
        f"/{name}/_search/point_in_time",
        parameters={"keep_alive": KEEP_ALIVE, "allow_partial_pit_creation": "false"},
    )
    point, found = opened["pit_id"], list[str]()
    try:
        for query in queries:
            yield from _pages(action, point, {"bool": {"filter": query}}, found)
    except EngineError:
        yield from close_point(action, point)
        raise
    yield from close_point(action, point)
    return sorted(found)


def _pages(action: str, point: str, query: Json, found: list[str]) -> Steps[None]:
    """Add the ids that a query finds."""
    body: Json = {
        "size": MAX_WINDOW,
        "query": query,
        "sort": [{ID: "asc"}],
        "pit": {"id": point, "keep_alive": KEEP_ALIVE},
        "track_total_hits": False,
        "_source": False,
    }
    while True:
        answer = yield Request(action, "POST", "/_search", body, {**WHOLE, **_READ})
        check_complete(action, answer)
        # The id is what is sorted by: no document is read.
        page = [hit["sort"] for hit in answer.get("hits", {}).get("hits", [])]
        found += [str(sort[0]) for sort in page]
        if len(page) < MAX_WINDOW:
            return
        body = {**body, "search_after": page[-1]}
