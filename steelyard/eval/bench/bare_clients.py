"""The engines' own clients with nothing of ours around them: what a benchmark compares with."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from steelyard.errors import InputError
from steelyard.plugin.engine import Engine, Generation
from steelyard.plugin.quantise import quantise
from steelyard.plugin.urls import parse_url
from steelyard.plugin.vocabulary import TermKeys, Vocabulary
from steelyard.types import EncodedDocuments


def bare_sender(
    url: str,
    engine: Engine,
    generation: Generation,
    batches: Sequence[EncodedDocuments],
    vocabulary: Vocabulary,
) -> Callable[[], None]:
    """Sends prepared requests by the bare client: the same documents, in requests of our sizes.

    Raises:
        InputError: an engine that is not known here.
    """
    parsed = parse_url(url)
    if parsed.scheme.startswith("opensearch"):
        return _opensearch(parsed.host, parsed.scheme, generation, batches, vocabulary)
    if parsed.scheme.startswith("milvus"):
        return _milvus(engine, generation, batches)
    raise InputError(f"no bare client for {parsed.scheme!r}", "known: opensearch, milvus")


def _opensearch(
    host: str,
    scheme: str,
    generation: Generation,
    batches: Sequence[EncodedDocuments],
    vocabulary: Vocabulary,
) -> Callable[[], None]:
    from opensearchpy import OpenSearch

    from steelyard.plugin.opensearch.bulk import document_items, requests_of
    from steelyard.plugin.opensearch.client import client_arguments
    from steelyard.plugin.opensearch.settings import read_settings

    settings = read_settings(host, tls=scheme == "opensearchs", environment=os.environ)
    arguments = client_arguments(settings)
    del arguments["serializer"], arguments["serializers"]
    client: Any = OpenSearch(**arguments)
    keys = TermKeys(vocabulary)
    bodies = []
    for batch in batches:
        impacts, _ = quantise(batch.sparse, generation.scale)
        parts = requests_of(document_items(generation, batch, impacts, keys))
        bodies += [b"".join(lines for _, lines in part).decode("utf-8") for part in parts]

    def send() -> None:
        for body in bodies:
            answer = client.bulk(body=body, index=generation.name)
            if answer["errors"]:
                raise InputError(
                    "the bare client's documents were refused", "see the server's log"
                )
        client.close()

    return send


def _milvus(
    engine: Engine, generation: Generation, batches: Sequence[EncodedDocuments]
) -> Callable[[], None]:
    from steelyard.plugin.milvus.engine import MilvusEngine

    if not isinstance(engine, MilvusEngine):
        raise InputError("this engine is no Milvus")
    requests = [rows for batch in batches for rows in engine.upsert_requests(generation, batch)[0]]
    # Milvus Lite's file belongs to one client.
    client = engine.connection.client

    def send() -> None:
        for rows in requests:
            client.upsert(generation.name, rows)

    return send
