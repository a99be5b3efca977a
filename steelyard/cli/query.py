"""``steelyard query``: the request that another service would send, ready to paste."""

from __future__ import annotations

import json as json_module
import os
import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steelyard.cli.options import FilterOption, MetadataOption, PackOption
from steelyard.cli.output import JsonOption, status, write_json
from steelyard.errors import EngineError, InputError

if TYPE_CHECKING:
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.plugin.engine import Generation
    from steelyard.plugin.filters import Filter
    from steelyard.plugin.fusion import Fusion

DSLS = ("opensearch", "milvus")
ARMS = {"hybrid": ("dense", "sparse"), "dense": ("dense",), "sparse": ("sparse",)}


def query(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The query.")],
    pack: PackOption,
    dsl: Annotated[str, typer.Option(help="Whose language: opensearch or milvus.")],
    to: Annotated[
        str | None, typer.Option("--to", metavar="URL", help="Engine; its index is checked.")
    ] = None,
    index: Annotated[
        str | None, typer.Option(metavar="NAME", help="Instead of --to: no engine is asked.")
    ] = None,
    arm: Annotated[str, typer.Option(help="hybrid, dense or sparse.")] = "hybrid",
    k: Annotated[int, typer.Option("--k", min=1, help="Number of hits.")] = 10,
    candidates: Annotated[
        int, typer.Option(min=1, help="Candidates of each arm that are joined.")
    ] = 100,
    fusion: Annotated[
        str | None, typer.Option(help="min-max or rrf; default: the pack's.")
    ] = None,
    instruction: Annotated[str | None, typer.Option(help="Name of the pack's table.")] = None,
    filter: FilterOption = None,
    metadata: MetadataOption = "",
    native_filter: Annotated[
        str | None,
        typer.Option(help="Instead of --filter: a condition in the engine's own language."),
    ] = None,
    milvus_api: Annotated[
        str, typer.Option("--milvus-api", help="REST interface: v2, or v1 of Milvus 2.3.")
    ] = "v2",
    columns: Annotated[
        str, typer.Option(help="Milvus: columns that a hit shows, if it has them.")
    ] = "id,title,text",
    curl: Annotated[bool, typer.Option("--curl", help="The whole call, not its body.")] = False,
    json: JsonOption = None,
) -> None:
    """Print the request body of a search: for services in Java, Go or anything else."""
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.indexer.reading.metadata_fields import parse_fields
    from steelyard.plugin.filter_json import parse_filter
    from steelyard.plugin.fusion import Fusion

    if dsl not in DSLS:
        raise InputError(f"unknown language {dsl!r}", f"choose one of {', '.join(DSLS)}")
    if arm not in ARMS:
        raise InputError(f"unknown arm {arm!r}", f"choose one of {', '.join(ARMS)}")
    if (to is None) == (index is None):
        raise InputError("say --to URL, or --index NAME", "--index asks no engine")
    if to is not None:
        _check_url(to, dsl)
    if k > candidates and arm == "hybrid":
        raise InputError(f"{k} hits of {candidates} candidates", "raise --candidates")
    encoder = QueryEncoder.load(pack)
    generation = None if to is None else _generation(encoder, to)
    arms = ARMS[arm]
    if generation is not None:
        missing = [name for name in arms if name not in generation.arms]
        if missing:
            raise EngineError(
                f"{generation.name} has no {missing[0]} arm",
                f"--arm {generation.arms[0]}",
            )
    name = index or _alias(to or "")
    encoded = encoder.encode_query(text, instruction=instruction)
    if encoded.truncated[0]:
        status.print("  the query was cut to the pack's limit", markup=False)
    if filter is not None and native_filter is not None:
        raise InputError("both --filter and --native-filter", "one of them says it")
    parsed = None if filter is None else parse_filter(filter)
    fields = parse_fields(metadata) if generation is None else generation.fields
    method = Fusion.of_pack(encoder.metadata.fusion, fusion)
    names = {} if generation is None else generation.columns
    shared: dict[str, Any] = {
        "arms": arms,
        "candidates": candidates,
        "k": k,
        "dense_field": names.get("dense", "dense"),
        "sparse_field": names.get("sparse", "sparse"),
    }
    if dsl == "opensearch":
        from steelyard.plugin.opensearch.dsl import opensearch_request
        from steelyard.plugin.opensearch.filter import opensearch_filter
        from steelyard.plugin.vocabulary import TermKeys

        condition = None if native_filter is None else _json_condition(native_filter)
        if parsed is not None:
            condition = opensearch_filter(parsed, fields, _paths(generation))
        keys = TermKeys(encoder.tokenizer)
        body = opensearch_request(encoded, keys, method, condition=condition, **shared)
        path = f"/{name}/_search"
        call = _opensearch_call(to, path, body)
    else:
        from steelyard.plugin.milvus_rest import milvus_request

        method = _milvus_fusion(method, fusion, arm)
        request = milvus_request(
            encoded,
            name,
            method,
            condition=native_filter or _milvus_condition(parsed, generation, fields, to),
            api=milvus_api,
            output=_shown(columns, generation),
            **shared,
        )
        path, body = request.path, request.body
        call = _milvus_call(to, path, body)
    typer.echo(call if curl else json_module.dumps(body, ensure_ascii=False))
    write_json({"method": "POST", "path": path, "body": body}, json)


def _generation(encoder: QueryEncoder, to: str) -> Generation:
    """What the engine searches now, whose spaces must be the pack's."""
    from steelyard.plugin.packs import check_spaces
    from steelyard.plugin.urls import open_engine

    engine = open_engine(to, must_exist=True, vocabulary=encoder.tokenizer)
    try:
        generation = engine.resolve()
    finally:
        engine.close()
    if generation is None:
        raise EngineError(f"no index {engine.alias!r} in this engine", "make one, or say --index")
    check_spaces(encoder.metadata.spaces, generation)
    return generation


def _check_url(to: str, dsl: str) -> None:
    from steelyard.plugin.urls import parse_url, split_pair

    if split_pair(to):
        raise InputError(
            "a request goes to one engine, and this is a pair",
            f"name its {dsl} half, with --arm dense or --arm sparse",
        )
    scheme = parse_url(to).scheme
    if not scheme.startswith(dsl):
        raise InputError(f"--dsl {dsl} for an engine of {scheme!r}", "they must fit each other")


def _alias(to: str) -> str:
    from steelyard.plugin.urls import parse_url

    return parse_url(to).alias


def _paths(generation: Generation | None) -> dict[str, str] | None:
    """Where an adopted index has the metadata fields; None is where Steelyard puts them."""
    if generation is None or not generation.columns:
        return None
    return {name: generation.columns.get(name, name) for name in generation.fields}


def _milvus_condition(
    filter: Filter | None, generation: Generation | None, fields: dict[str, str], to: str | None
) -> str:
    from steelyard.plugin.engine import Generation as Template
    from steelyard.plugin.milvus.filter import milvus_expression
    from steelyard.plugin.milvus.layout import own_layout

    if generation is not None and generation.columns:
        if filter is not None:
            raise InputError("an adopted collection has columns of its own", "use --native-filter")
        return ""
    template = Template("any", "", "", "", "", 0, 0, 1.0, fields)
    layout = own_layout(template, lite=bool(to) and str(to).startswith("milvus-lite"))
    return milvus_expression(filter, layout)


def _json_condition(text: str) -> dict[str, Any]:
    try:
        value = json_module.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InputError(
            "the native filter is no JSON object",
            """OpenSearch takes a query: --native-filter '{"term": {"metadata.brand": "x"}}'""",
        )
    return value


def _shown(columns: str, generation: Generation | None) -> list[str]:
    """Columns of a hit: Milvus refuses those that a collection lacks."""
    shown = [name.strip() for name in columns.split(",") if name.strip()]
    if generation is None:
        return shown
    if "sparse" in generation.arms_elsewhere:  # the other engine has the texts
        shown = [name for name in shown if name not in ("title", "text")]
    return [generation.columns.get(name, name) for name in shown]


def _milvus_fusion(fusion: Fusion, asked: str | None, arm: str) -> Fusion:
    """Milvus joins by rrf; where nobody asked for another method, that is taken and told."""
    from dataclasses import replace

    if fusion.method == "rrf" or asked is not None or arm != "hybrid":
        return fusion
    status.print(
        f"  Milvus does not join arms by {fusion.method}: this is rrf. For {fusion.method}, send "
        "--arm dense and --arm sparse and join the answers",
        markup=False,
        soft_wrap=True,
    )
    return replace(fusion, method="rrf")


def _opensearch_call(to: str | None, path: str, body: dict[str, Any]) -> str:
    from steelyard.plugin.opensearch.cluster.example import curl
    from steelyard.plugin.opensearch.settings import read_settings
    from steelyard.plugin.urls import parse_url

    parts = parse_url(to or "opensearch://localhost:9200/documents")
    settings = read_settings(parts.host, tls=parts.scheme == "opensearchs", environment=os.environ)
    return curl(settings, path, body)


def _milvus_call(to: str | None, path: str, body: dict[str, Any]) -> str:
    from steelyard.plugin.urls import parse_url

    parts = parse_url(to or "milvus://localhost:19530/documents")
    scheme = "https" if parts.scheme == "milvuss" else "http"
    words = ["curl", "-s", "-H", "'Content-Type: application/json'"]
    if os.environ.get("STEELYARD_MILVUS_TOKEN"):
        words += ["-H", '"Authorization: Bearer $STEELYARD_MILVUS_TOKEN"']
    elif os.environ.get("STEELYARD_MILVUS_USER"):
        user = "$STEELYARD_MILVUS_USER:$STEELYARD_MILVUS_PASSWORD"
        words += ["-H", f'"Authorization: Bearer {user}"']
    words += [shlex.quote(f"{scheme}://{parts.host}{path}"), "-d"]
    return " ".join([*words, shlex.quote(json_module.dumps(body, ensure_ascii=False))])
