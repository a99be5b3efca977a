"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Corpus = Annotated[
    Path, typer.Argument(metavar="CORPUS", help="BEIR folder, or a .jsonl[.gz] file of documents.")
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
    typer.Option("--metadata", help="Declared metadata fields, e.g. 'price:float,brand:keyword'."),
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
