"""``steelyard bench bulk|search|recall``: what engines do with our layer on top."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steelyard.cli.comma_separated import integers
from steelyard.cli.options import Corpus, EngineOption, PackOption, PrecisionOption, ShardsOption
from steelyard.cli.output import JsonOption, RichProgress, print_rows, write_json

if TYPE_CHECKING:
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.plugin.engine import Generation
    from steelyard.types import DenseVectors

_WINDOW = 24
"""Words of a passage."""


def bulk(
    corpus: Corpus,
    pack: PackOption,
    to: EngineOption,
    rounds: Annotated[int, typer.Option(min=1, help="Of each contender.")] = 3,
    shards: ShardsOption = None,
    precision: PrecisionOption = "auto",
    json: JsonOption = None,
) -> None:
    """Documents a second into an engine, against the bare client's own bulk call."""
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.eval.bench.engines import bench_bulk
    from steelyard.indexer.build import EncodeSettings, encode_documents
    from steelyard.indexer.encoding.shards import read_shard
    from steelyard.indexer.loading.load import template_generation
    from steelyard.indexer.reading.readers import open_corpus

    queries, progress = QueryEncoder.load(pack), RichProgress()
    folder, manifest = encode_documents(
        open_corpus(corpus),
        queries,
        progress,
        EncodeSettings(precision=precision, shards=shards),
    )
    result = bench_bulk(
        to,
        template_generation(manifest, queries.metadata),
        [read_shard(folder / entry.name) for entry in manifest.shards],
        queries.tokenizer,
        progress,
        rounds=rounds,
    )
    columns = ["engine", "arms", "documents", "ours/s", "bare client/s", "ratio"]
    print_rows("bulk load", columns, [[str(value) for value in result.values()]])
    write_json(result, json)


def search(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="BEIR folder with queries.")],
    pack: PackOption,
    to: EngineOption,
    queries: Annotated[int, typer.Option(min=1, help="So many of its test queries.")] = 200,
    candidates: Annotated[
        str, typer.Option(help="Of each arm: comma-separated, each is measured.")
    ] = "100,1000",
    passages: Annotated[
        int, typer.Option(min=0, help="Index so many passages of the corpus first; 0: as it is.")
    ] = 0,
    precision: PrecisionOption = "auto",
    json: JsonOption = None,
) -> None:
    """Milliseconds a query: arms alone, hybrid, with documents, with feedback, many at once."""
    from steelyard.eval.bench.engines import bench_concurrent, bench_search
    from steelyard.eval.collection import read_judged
    from steelyard.plugin.async_searcher import AsyncSearcher
    from steelyard.plugin.searcher import Searcher

    texts = [query.text for query in read_judged(corpus).queries[:queries]]
    if passages:
        load_passages(corpus, pack, to, passages, precision)
    results: list[dict[str, Any]] = []
    for depth in integers(candidates, "--candidates", example="100,1000", least=10):
        with Searcher.open(pack, to, candidates=depth) as searcher:
            result = bench_search(searcher, texts, candidates=depth)
        if not to.startswith("milvus-lite"):  # its file belongs to one searcher at a time
            with Searcher.open(pack, to, candidates=depth) as searcher:
                opened = partial(AsyncSearcher.open, pack, to, candidates=depth)
                result["concurrent"] = bench_concurrent(searcher, opened, texts)
        results.append(result)
    for result in results:
        rows = [[name, f"{value:.2f}"] for name, value in result["milliseconds"].items()]
        rows += [
            [name.replace("_", " "), f"{value:.3f}"]
            for name, value in result.items()
            if isinstance(value, float)
        ]
        for name, value in result.get("concurrent", {}).items():
            rows.append([name.replace("_", " "), f"{value:,.0f}"])
        print_rows(f"{result['candidates']} candidates an arm, ms a query", ["", ""], rows)
    write_json({"engine": to.split(":", 1)[0], "results": results}, json)


def recall(
    corpus: Corpus,
    pack: PackOption,
    to: EngineOption,
    vectors: Annotated[int, typer.Option(min=1000, help="Passages of the corpus.")] = 100_000,
    queries: Annotated[int, typer.Option(min=1, help="So many passages are the queries.")] = 200,
    precision: PrecisionOption = "auto",
    json: JsonOption = None,
) -> None:
    """Recall@100 of an engine's neighbours against exact ones, at the settings we give it."""
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.eval.bench.engines import bench_recall

    encoder, progress = QueryEncoder.load(pack), RichProgress()
    template, texts, encoded = _passages(corpus, encoder, vectors, precision, progress)
    looked_up = encoder.encode_dense(texts[:: max(1, len(texts) // queries)][:queries])
    result = bench_recall(to, template, encoded, looked_up, progress)
    print_rows("neighbours", ["", ""], [[name, str(value)] for name, value in result.items()])
    write_json(result, json)


def _passages(
    corpus: str | Path,
    encoder: QueryEncoder,
    count: int,
    precision: str,
    progress: RichProgress,
    model: str | None = None,
) -> tuple[Generation, list[str], DenseVectors]:
    """What a generation of passages is, their texts, and their vectors."""
    from steelyard.encoders.documents.from_pack import open_dense_encoder
    from steelyard.eval.bench.passages import encoded_windows, windows
    from steelyard.indexer.reading.documents import good_documents
    from steelyard.indexer.reading.readers import open_corpus
    from steelyard.plugin.engine import Generation

    metadata = encoder.metadata
    template = Generation(
        "passages", metadata.spaces.dense, metadata.spaces.sparse, metadata.pack_id, "passages",
        encoder.dims, encoder.vocabulary_size, metadata.sparse.scale,
    )  # fmt: skip
    documents = good_documents(open_corpus(corpus))
    texts = windows([document.text for document in documents], count, _WINDOW)
    vectors = encoded_windows(
        texts,
        metadata.spaces.dense,
        lambda: open_dense_encoder(metadata, model=model, precision=precision),
        progress,
    )
    return template, texts, vectors


def load_passages(
    corpus: Path,
    pack: Path,
    to: str,
    count: int,
    precision: str,
    *,
    dense_only: bool = False,
    model: str | None = None,
) -> None:
    """Index so many passages of a corpus, unless they are there.

    Args:
        corpus, pack, to: as of the commands.
        count: of the passages.
        precision: of the document encoder, if their vectors are not kept yet.
        dense_only: leave the sparse arm out where the engine has no sparse vectors.
        model: where the document encoder is now, if it has moved.
    """
    from steelyard.encoders.documents.from_pack import open_sparse_encoder
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.eval.bench.engines import arms_held
    from steelyard.eval.bench.passages import index_passages
    from steelyard.plugin.urls import open_engine

    encoder, progress = QueryEncoder.load(pack), RichProgress()
    template, texts, vectors = _passages(corpus, encoder, count, precision, progress, model)
    engine = open_engine(to, vocabulary=encoder.tokenizer)
    try:
        if dense_only:
            current = engine.resolve()
            arms = arms_held(engine, template) if current is None else current.arms
            template = replace(template, arms=arms)
        terms = open_sparse_encoder(encoder)
        index_passages(engine, template, texts, vectors, terms, progress)
    finally:
        engine.close()
