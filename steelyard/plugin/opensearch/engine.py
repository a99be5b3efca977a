"""OpenSearch as an engine: an index a generation, the alias moved by one request.

Facts of the engine that shape this code: what is written is searchable after a refresh; an alias
and an index cannot share a name; rank_features stores values with 9 significant bits, in which
integers up to 512 are exact, and only the Lucene engine of k-NN is free of native code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from steelyard.errors import EngineError
from steelyard.plugin.engine import Generation
from steelyard.plugin.opensearch.bulk import delete_lines, document_lines, send
from steelyard.plugin.opensearch.cluster.attach import attach_pipeline, refuse_without_pack
from steelyard.plugin.opensearch.connection import Connection
from steelyard.plugin.opensearch.index import OpenSearchIndex
from steelyard.plugin.opensearch.mapping import check_tokens, described, index_body
from steelyard.plugin.quantise import quantise
from steelyard.plugin.vocabulary import TermKeys, Vocabulary
from steelyard.types import EncodedDocuments

_STAMP = r"_\d{14}_[0-9a-f]{8}"


class OpenSearchEngine:
    """One alias in one cluster.

    Args:
        connection: to the cluster.
        alias: the name that users search.
        vocabulary: the pack's tokenizer: terms are keyed by token strings. Without it neither
            the sparse arm nor writing works.
    """

    def __init__(
        self, connection: Connection, alias: str, vocabulary: Vocabulary | None = None
    ) -> None:
        self._connection = connection
        self._alias = alias
        self._keys = TermKeys(vocabulary)
        self._names = re.compile(re.escape(alias) + _STAMP)

    @property
    def alias(self) -> str:
        """The name that users search."""
        return self._alias

    def resolve(self) -> Generation | None:
        """The generation that the alias stands for.

        Raises:
            EngineError: the name is an index, or stands for several, or for one of someone else.
        """
        found = self._mappings(self._alias)
        if not found:
            return None
        if self._alias in found:
            raise EngineError(
                f"{self._alias!r} is an index here, not an alias",
                "choose another name in the engine URL",
            )
        if len(found) > 1:
            raise EngineError(
                f"the alias {self._alias!r} stands for {len(found)} indexes: "
                f"{', '.join(sorted(found))}",
                "remove it from all but one",
            )
        ((name, mappings),) = found.items()
        return described(mappings, f"index {name}")[0]

    def generations(self) -> list[Generation]:
        """All generations of this alias, newest first."""
        found = self._mappings(f"{self._alias}_*")
        names = sorted(filter(self._names.fullmatch, found), reverse=True)
        return [described(found[name], f"index {name}")[0] for name in names]

    def create(self, generation: Generation) -> None:
        """Make an empty index that is not refreshed until it is sealed."""
        name = self._checked(generation)
        refuse_without_pack(self._connection, self.resolve(), generation)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        body = index_body(generation, self._keys, now)
        try:
            answer = self._connection.request(f"create {name}", "PUT", f"/{name}", body)
        except EngineError as error:
            if "resource_already_exists" not in error.message:
                raise
            # The first attempt may have arrived although its answer was lost.
            if self._generation(name) != generation or self.open(generation).count():
                raise
            return
        if not answer.get("shards_acknowledged"):
            raise EngineError(
                f"{name} was created, but its shards did not start",
                "look at the cluster's health, and index again",
            )

    def upsert(self, generation: Generation, batch: EncodedDocuments) -> int:
        """Write whole documents, in requests of 8 MB; how many weights were clipped."""
        # A bulk request to an index that was dropped would make a new one, of guessed types.
        name = self.open(generation).generation.name
        for found, expected, what in (
            (batch.dense.shape[1], generation.dims, "dimensions"),
            (batch.sparse.vocabulary_size, generation.vocabulary_size, "columns"),
        ):
            if found != expected:
                raise EngineError(
                    f"vectors of {found} {what} for {name}, which has {expected}",
                    "index with the pack that the generation was made for",
                )
        impacts, clipped = quantise(batch.sparse, generation.scale)
        lines = document_lines(generation, batch, impacts, self._keys)
        send(self._connection, name, lines, missing_ok=False)
        return clipped

    def delete(self, generation: Generation, ids: Sequence[str]) -> None:
        """Remove documents by id."""
        name = self._checked(generation)
        send(self._connection, name, delete_lines(ids), missing_ok=True)

    def seal(self, generation: Generation) -> None:
        """Refresh, and from now on at the cluster's own interval."""
        name = self._checked(generation)
        action, request = f"refresh {name}", self._connection.request
        request(action, "PUT", f"/{name}/_settings", {"index": {"refresh_interval": None}})
        for path in ("_flush", "_refresh"):
            answer = request(action, "POST", f"/{name}/{path}")
            if answer["_shards"]["failed"]:
                raise EngineError(f"cannot {action}: {answer['_shards']['failed']} shards failed")

    def publish(self, generation: Generation) -> None:
        """Point the alias to a generation, in one atomic request."""
        name = self._checked(generation)
        attach_pipeline(self._connection, self.resolve(), generation)
        action = f"point {self._alias} to {name}"
        old = {"index": f"{self._alias}_*", "alias": self._alias, "must_exist": False}
        new = {"index": name, "alias": self._alias}
        self._connection.request(
            action, "POST", "/_aliases", {"actions": [{"remove": old}, {"add": new}]}
        )

    def drop(self, generation: Generation) -> None:
        """Remove a generation.

        Raises:
            EngineError: the alias stands for it.
        """
        name = self._checked(generation)
        current = self.resolve()
        if current is not None and current.name == name:
            raise EngineError(f"{name} is what {self._alias} stands for, so it stays")
        self._connection.request(f"drop {name}", "DELETE", f"/{name}", missing_ok=True)

    def open(
        self, generation: Generation, vocabulary: Vocabulary | None = None
    ) -> OpenSearchIndex:
        """A generation for reading.

        Raises:
            EngineError: it is gone, or was made with another tokenizer.
        """
        name = self._checked(generation)
        mappings = self._mappings(name).get(name)
        if mappings is None:
            raise EngineError(f"{name} is not in this cluster", "it was dropped: resolve again")
        found, tokens = described(mappings, f"index {name}")
        keys = self._keys if vocabulary is None else TermKeys(vocabulary)
        check_tokens(found, tokens, keys)
        return OpenSearchIndex(self._connection, found, keys)

    def close(self) -> None:
        """Let go of connections."""
        self._connection.close()

    def _checked(self, generation: Generation) -> str:
        """A name goes into paths, so nothing else than a generation's name may."""
        if not self._names.fullmatch(generation.name):
            raise EngineError(
                f"{generation.name!r} is no generation of {self._alias!r}",
                "generations are called <alias>_<utc time>_<hash>",
            )
        return generation.name

    def _generation(self, name: str) -> Generation | None:
        mappings = self._mappings(name).get(name)
        return None if mappings is None else described(mappings, f"index {name}")[0]

    def _mappings(self, names: str) -> dict[str, Any]:
        """Mapping by index of what a name, an alias or a pattern stands for."""
        answer = self._connection.request(
            f"look up {names}", "GET", f"/{names}/_mapping", missing_ok=True
        )
        return {name: found.get("mappings", {}) for name, found in (answer or {}).items()}
