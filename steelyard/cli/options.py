"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Corpus = Annotated[
    str,
    typer.Argument(
        metavar="CORPUS",
        help="BEIR folder; a .jsonl, .csv, .tsv or .parquet file, .gz and .zst too; a folder or "
        "'glob' of them; hf:NAME?split=train; ir_datasets:ID; - for standard input.",
    ),
]
PackOption = Annotated[Path, typer.Option("--pack", metavar="PACK", help="Query pack folder.")]
EngineOption = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="URL",
        help="Engine, e.g. 'milvus-lite:///path/file.db?name=demo', opensearch://host:9200/demo; "
        "two of them: dense=URL,sparse=URL.",
    ),
]
EnginesOption = Annotated[
    list[str],
    typer.Option(
        "--to",
        metavar="URL",
        help="Engine, e.g. 'milvus-lite:///path/file.db?name=demo', opensearch://host:9200/demo; "
        "one arm in each of two: dense=URL,sparse=URL. Several --to: all get the same documents.",
    ),
]
FilterOption = Annotated[
    str | None,
    typer.Option(
        metavar="JSON",
        help='Condition on metadata, e.g. \'{"range": {"price": {"lt": 10}}}\'.',
    ),
]
PrecisionOption = Annotated[
    str,
    typer.Option(help="Document encoder: auto, float32, bfloat16; float16 for causal models."),
]
CausalPrecisionOption = Annotated[
    str, typer.Option(help="auto (the checkpoint's own), float32, bfloat16 or float16.")
]
DeviceOption = Annotated[
    str | None,
    typer.Option(help="Default: CUDA, then MPS, then CPU; 'auto' spreads over GPUs."),
]
TASK = "Given a web search query, retrieve relevant passages that answer the query"
"""LightRetriever's task for web search: the instruction of who gives none."""

ShardsOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of encoded documents; default: the cache."),
]
ShardDocumentsOption = Annotated[int, typer.Option(min=1, help="Documents in a shard.")]
OverwriteOption = Annotated[bool, typer.Option(help="Replace a pack that is there.")]
ModelMovedOption = Annotated[
    str | None,
    typer.Option("--model", help="Where the document encoder is now, if it has moved."),
]
PoolsOption = Annotated[
    int,
    typer.Option(min=1, help="Pools of pseudo-queries; a table a pool, averaged."),
]
LeanOption = Annotated[
    float, typer.Option(min=0.0, help="How far targets lean toward the source documents.")
]
QueryPromptOption = Annotated[
    str | None, typer.Option(help="Put before queries; default: the model's own.")
]
DocumentPromptOption = Annotated[
    str | None, typer.Option(help="Put before documents; default: the model's own.")
]
AdapterMovedOption = Annotated[
    str | None,
    typer.Option("--adapter", metavar="DIR", help="Where its LoRA adapter is now, if moved."),
]
MetadataOption = Annotated[
    str,
    typer.Option(
        "--metadata",
        help="Declared metadata fields, e.g. 'price:float,brand:keyword'; "
        "'price:float=cost' takes it from the corpus' field cost.",
    ),
]
MappingIdOption = Annotated[
    str | None,
    typer.Option(
        "--id",
        metavar="FIELD",
        help="The corpus' field with the id; default: _id, else id. A number: that column of a "
        "CSV or TSV file without a header.",
    ),
]
MappingTitleOption = Annotated[
    str | None,
    typer.Option(
        "--title", metavar="FIELD", help="The field with the title; '' for none. Default: title."
    ),
]
MappingTextOption = Annotated[
    str | None,
    typer.Option(
        "--text",
        metavar="FIELDS",
        help="The field with the text, or several, e.g. 'description,body'. Default: text.",
    ),
]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format", help="Of the corpus: jsonl, csv, tsv, parquet; default: by the files' names."
    ),
]
PassagesOption = Annotated[
    str | None,
    typer.Option(
        "--passages",
        metavar="TOKENS/OVERLAP",
        help="Split long documents into passages, e.g. 256/32.",
    ),
]
MaxRejectedOption = Annotated[
    int | None, typer.Option(min=0, help="Stop when more lines are no documents.")
]

ProgressOption = Annotated[
    str,
    typer.Option("--progress", help="auto, rich, json (one object a line on stderr) or none."),
]
MetricsOption = Annotated[
    Path | None,
    typer.Option("--metrics", metavar="FILE.prom", help="Keep Prometheus metrics in a file."),
]
PushGatewayOption = Annotated[
    str | None,
    typer.Option("--push-gateway", metavar="URL", help="Send Prometheus metrics there."),
]
LogFormatOption = Annotated[
    str | None, typer.Option("--log-format", help="Write a log on stderr: text or json.")
]
LogLevelOption = Annotated[
    str, typer.Option("--log-level", help="Of the log: debug, info, warning or error.")
]
FailOnRejectedOption = Annotated[
    bool,
    typer.Option("--fail-on-rejected", help="Exit with 6 if the job is done but rejected some."),
]
