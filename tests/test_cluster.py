"""Queries encoded inside a real OpenSearch: installed, searched by text, switched, taken out."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from steelyard.encoders.pack.files import write_pack
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.encoders.query.tables import table_tensors
from steelyard.errors import EngineError, InputError, PackMismatchError
from steelyard.plugin.fusion import Fusion
from steelyard.plugin.opensearch.bodies import dense_query, hybrid_body, sparse_query
from steelyard.plugin.opensearch.cluster.attach import attach_pipeline
from steelyard.plugin.opensearch.cluster.checks import LOCAL_FILE, ML_NODE
from steelyard.plugin.opensearch.cluster.example import text_query
from steelyard.plugin.opensearch.cluster.install import install
from steelyard.plugin.opensearch.cluster.models import HALF, find_models, predict
from steelyard.plugin.opensearch.cluster.names import model_name, pipeline_name
from steelyard.plugin.opensearch.cluster.pipelines import default_pipelines, set_default
from steelyard.plugin.opensearch.cluster.status import installed_packs
from steelyard.plugin.opensearch.cluster.target import Target, open_target
from steelyard.plugin.opensearch.cluster.uninstall import uninstall
from steelyard.plugin.searcher import Searcher
from steelyard.progress import SilentProgress
from tests.cluster_packs import Packed, causal_pack, questions, small_pack
from tests.conftest import Small
from tests.servers.opensearch_node import RefusedError, ask, running_node
from tests.test_cli import fails, ok

pytest_plugins = ["tests.servers.opensearch", "tests.servers.opensearch_alias"]
pytestmark = [pytest.mark.opensearch]

QUIET = SilentProgress()
SETTINGS = "/_cluster/settings"


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    return causal_pack(tmp_path_factory.mktemp("causal"))


@pytest.fixture(scope="module")
def redistilled(bpe: Packed, tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """Another pack of the same spaces: its look-ups differ, its documents do not."""
    path = tmp_path_factory.mktemp("redistilled") / "pack"
    (name,) = bpe.encoder.tables
    rows = np.asarray(bpe.encoder.tables[name].rows, np.float32)
    noise = np.random.default_rng(1).normal(size=rows.shape).astype(np.float32)
    tables = table_tensors(rows + noise * rows.std() * 3, "float32", name)
    metadata = replace(bpe.encoder.metadata, name="redistilled")
    write_pack(path, metadata, bpe.encoder.tokenizer_json, tables, bpe.encoder.query_weights)
    encoder = QueryEncoder.load(path)
    assert encoder.metadata.spaces == bpe.encoder.metadata.spaces
    assert encoder.metadata.pack_id != bpe.encoder.metadata.pack_id
    return Packed(path, encoder, bpe.documents)


@pytest.fixture(scope="module")
def minilm(request: pytest.FixtureRequest) -> Packed:
    small: Small = request.getfixturevalue("small")
    return small_pack(small)


@pytest.fixture
def target(url: str) -> Iterator[Target]:
    """The test's own alias; nothing of ours is in the cluster before and after."""
    with open_target(url) as opened:
        yield opened
        uninstall(opened.connection, None, QUIET, force=True)
        assert installed_packs(opened.connection) == []


def search(base: str, alias: str, body: dict[str, Any]) -> list[tuple[str, float]]:
    hits = ask(base, "POST", f"/{alias}/_search", body)["hits"]["hits"]
    return [(hit["_id"], hit["_score"]) for hit in hits]


def repeats(packed: Packed, text: str) -> bool:
    """Whether a token of the sparse arm occurs twice."""
    ids, weights = packed.encoder.encode_sparse([text]).row(0)
    return bool((weights > packed.encoder.query_weights[ids] * 1.01).any())


def by_vectors(packed: Packed, text: str, candidates: int, k: int) -> dict[str, Any]:
    """The hybrid query with vectors of the client; every token counts once."""
    encoder = packed.encoder
    ids, _ = encoder.encode_sparse([text]).row(0)
    terms = {
        str(encoder.tokenizer.id_to_token(i)): float(encoder.query_weights[i])
        for i in ids.tolist()
    }
    vector = encoder.encode_dense([text])[0].tolist()
    fusion = Fusion.of_pack(encoder.metadata.fusion)
    queries = [dense_query(vector, candidates), sparse_query(terms)]
    return hybrid_body(queries, fusion, fusion.weights, candidates, k, id_field=None)


def agree(found: list[tuple[str, float]], expected: list[tuple[str, float]]) -> None:
    """The same ranking, but for documents whose scores are equal to 1e-5."""
    assert len(found) == len(expected)
    for (ours, score), (theirs, wanted) in zip(found, expected, strict=True):
        assert score == pytest.approx(wanted, abs=1e-5)
        if ours != theirs:
            assert dict(expected).get(ours, score) == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("which", ["minilm", "bpe"])
def test_search_by_text_ranks_as_by_vectors(
    which: str,
    request: pytest.FixtureRequest,
    target: Target,
    url: str,
    opensearch_url: str,
    alias: str,
) -> None:
    packed: Packed = request.getfixturevalue(which)
    generation = packed.load(url, 1)
    made = install(packed.path, target, QUIET)
    assert made.generation == generation.name
    assert made.max_difference <= 1e-5
    assert made.reused == []
    texts = questions()[:1100:20]
    vectors = np.array(predict(target.connection, made.models["dense"], texts, dense=True))
    difference = np.abs(vectors - packed.encoder.encode_dense(texts)).max()
    assert difference <= 1e-5
    overlap: list[float] = []
    once: list[float] = []
    with Searcher.open(packed.path, url, candidates=100) as searcher:
        for text in texts:
            found = search(opensearch_url, alias, text_query(generation, text))
            agree(found, search(opensearch_url, alias, by_vectors(packed, text, 100, 10)))
            ours = {hit.id for hit in searcher.search(text, 10).hits}
            share = len(ours & {identifier for identifier, _ in found}) / len(ours)
            (overlap if repeats(packed, text) else once).append(share)
    print(
        f"{which}: dense vectors within {difference:.1e}; overlap@10 with the searcher: "
        f"{np.mean(once):.3f} on {len(once)} queries without a repeated token, "
        f"{np.mean(overlap) if overlap else 1:.3f} on {len(overlap)} with one"
    )
    assert np.mean(once) >= 0.99


def test_an_installation_is_found_again(
    bpe: Packed, target: Target, url: str, opensearch_url: str
) -> None:
    bpe.load(url, 1)
    first = install(bpe.path, target, QUIET)
    pack = bpe.encoder.metadata.pack_id
    body = {
        "name": model_name(pack, "dense"),
        "version": "1",
        "model_format": "TORCH_SCRIPT",
        "function_name": "SPARSE_TOKENIZE",
        "model_content_hash_value": "0" * 64,
        "model_content_size_in_bytes": 1,
        "total_chunks": 1,
    }
    half = ask(opensearch_url, "POST", "/_plugins/_ml/models/_register_meta", body)["model_id"]
    states = {model.id: model.state for model in find_models(target.connection, pack)}
    assert states[half] == HALF
    dense = first.models["dense"]
    ask(opensearch_url, "POST", f"/_plugins/_ml/models/{dense}/_undeploy")
    second = install(bpe.path, target, QUIET)
    assert second.models == first.models
    assert second.reused == ["dense", "sparse"]
    assert second.removed == [half]
    assert {model.id for model in find_models(target.connection)} == set(first.models.values())
    # Other contents of the same pack take the place of the first; the sparse model stays.
    third = install(bpe.path, target, QUIET, dtype="float16")
    assert third.reused == ["sparse"]
    assert third.removed == [dense]
    (status,) = installed_packs(target.connection)
    assert (status.state, status.named) == ("ready", third.models)


def killed(connection: Any, *arguments: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", ["register", "deploy", "verify", "put_pipeline", "set_default"])
def test_a_killed_installation_goes_on(
    bpe: Packed, target: Target, url: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bpe.load(url, 1)
    with monkeypatch.context() as patched:
        patched.setattr(f"steelyard.plugin.opensearch.cluster.install.{step}", killed)
        with pytest.raises(KeyboardInterrupt):
            install(bpe.path, target, QUIET)
    made = install(bpe.path, target, QUIET)
    assert made.reused == ([] if step == "register" else ["dense", "sparse"])
    (status,) = installed_packs(target.connection)
    assert status.state == "ready"
    assert len(status.models) == 2


def test_generations_without_an_arm(
    bpe: Packed, target: Target, url: str, opensearch_url: str, alias: str
) -> None:
    """Half of a pair of engines: the other arm is elsewhere."""
    text = questions()[3]
    for number, arm in enumerate(("dense", "sparse"), start=1):
        generation = bpe.generation(alias, number, [arm])
        body = text_query(generation, text)
        assert list(body["query"]) == [{"dense": "neural", "sparse": "neural_sparse"}[arm]]
    generation = bpe.load(url, 3)
    install(bpe.path, target, QUIET)
    for arm in ("dense", "sparse"):
        found = search(opensearch_url, alias, text_query(replace(generation, arms=(arm,)), text))
        assert len(found) == 10


def switch(packed: Packed, url: str, number: int) -> str:
    """A new generation under the alias, the way a re-index makes one."""
    return packed.load(url, number).name


def reader(
    base: str, alias: str, body: dict[str, Any], stop: threading.Event
) -> tuple[threading.Thread, list[tuple[str, list[str]]], list[RefusedError]]:
    """Searches by text all the time; what it saw, and what was refused."""
    seen: list[tuple[str, list[str]]] = []
    refused: list[RefusedError] = []

    def read() -> None:
        while not stop.is_set():
            try:
                hits = ask(base, "POST", f"/{alias}/_search", body)["hits"]["hits"]
            except RefusedError as error:
                refused.append(error)
                continue
            names = {hit["_index"] for hit in hits}
            seen.append((",".join(sorted(names)), [hit["_id"] for hit in hits]))

    thread = threading.Thread(target=read)
    thread.start()
    return thread, seen, refused


@pytest.mark.parametrize("other", ["redistilled", "minilm"])
def test_models_switch_with_the_alias(
    other: str,
    request: pytest.FixtureRequest,
    bpe: Packed,
    target: Target,
    url: str,
    opensearch_url: str,
    alias: str,
) -> None:
    packs = [bpe, request.getfixturevalue(other)]
    generation = packs[0].load(url, 0)
    install(packs[0].path, target, QUIET)
    install(packs[1].path, target, QUIET, models_only=True)
    text = next(text for text in questions() if not any(repeats(pack, text) for pack in packs))
    body = text_query(generation, text)
    own = [[i for i, _ in search(opensearch_url, alias, body)]]
    switch(packs[1], url, 1)
    found = search(opensearch_url, alias, body)
    agree(found, search(opensearch_url, alias, by_vectors(packs[1], text, 100, 10)))
    own.append([i for i, _ in found])
    assert own[0] != own[1]
    stop = threading.Event()
    thread, seen, refused = reader(opensearch_url, alias, body, stop)
    names = {}
    try:
        for number in range(2, 14):
            pack = packs[number % 2]
            name = switch(pack, url, number)
            names[name] = number % 2
            wait_until(lambda name=name: bool(seen) and seen[-1][0] == name)
    finally:
        stop.set()
        thread.join()
    torn = sum(ranking != own[names[name]] for name, ranking in seen if name in names)
    print(f"{other}: {len(seen)} answers, {torn} torn, {len(refused)} refused in 12 switches")
    assert all("," not in name for name, _ in seen)
    assert all(ranking in own for _, ranking in seen)
    if other == "redistilled":
        assert refused == []
    else:
        # Encoded before the switch, compared after it: docs/in-cluster.md.
        assert all("invalid dimension" in str(error) for error in refused)
        assert len(refused) <= 12
        assert torn == 0


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    deadline = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        deadline.wait(0.02)
    raise AssertionError("it did not happen")


def test_a_pack_that_is_not_installed_is_not_published(
    bpe: Packed, minilm: Packed, target: Target, url: str, opensearch_url: str, alias: str
) -> None:
    first = bpe.load(url, 1)
    waiting = minilm.load(url, 2, publish=False)  # loaded before the pack was installed
    made = install(bpe.path, target, QUIET)
    engine = minilm.engine(url)
    for number, attempt in enumerate((engine.create, engine.publish)):
        with pytest.raises(EngineError, match="is not installed in the cluster") as caught:
            attempt(minilm.generation(alias, 3, ["dense", "sparse"]) if not number else waiting)
        assert "--models-only" in caught.value.hint
    current = engine.resolve()
    assert current is not None
    assert current.name == first.name
    # A generation of the same spaces takes the pipeline that is in use.
    same = replace(bpe.generation(alias, 4, ["dense", "sparse"]), pack_id="pack-0")
    ours = bpe.engine(url)
    ours.create(same)
    ours.publish(same)
    connection = target.connection
    assert default_pipelines(connection, same.name) == {same.name: made.pipeline}
    # Back to an older one: it still has its own.
    ours.publish(first)
    # Someone else's pipeline stays.
    ask(opensearch_url, "PUT", "/_search/pipeline/theirs", {})
    set_default(connection, same.name, "theirs")
    assert attach_pipeline(connection, first, same) == "theirs"
    ours.publish(same)
    with pytest.raises(EngineError, match="someone else, 'theirs'"):
        install(bpe.path, target, QUIET)
    # Given up: published as before.
    uninstall(connection, made.pack_id, QUIET, force=True)
    engine.publish(waiting)
    for opened in (ours, engine):
        opened.close()
    ask(opensearch_url, "PUT", f"/{same.name}/_settings", {"index.search.default_pipeline": None})
    ask(opensearch_url, "DELETE", "/_search/pipeline/theirs")


def test_uninstalling_what_is_in_use(bpe: Packed, target: Target, url: str, alias: str) -> None:
    generation = bpe.load(url, 1)
    made = install(bpe.path, target, QUIET)
    with pytest.raises(EngineError, match=f"encodes the queries of {generation.name}"):
        uninstall(target.connection, None, QUIET)
    (status,) = installed_packs(target.connection)
    assert [(use.index, use.aliases) for use in status.uses] == [(generation.name, [alias])]
    gone = uninstall(target.connection, made.pack_id, QUIET, force=True)
    assert gone.indexes == [generation.name]
    assert sorted(gone.models) == sorted(made.models.values())
    assert default_pipelines(target.connection, generation.name) == {}
    with pytest.raises(EngineError, match="pack-0 is not installed"):
        uninstall(target.connection, "pack-0", QUIET)
    engine = bpe.engine(url)
    assert engine.open(generation).count() == 60  # the index itself is untouched
    engine.close()


def test_settings_that_stand_in_the_way(
    bpe: Packed, target: Target, url: str, opensearch_url: str
) -> None:
    bpe.load(url, 1)
    ask(opensearch_url, "PUT", SETTINGS, {"persistent": {LOCAL_FILE: False, ML_NODE: True}})
    try:
        with pytest.raises(EngineError, match="does not run models of ours") as caught:
            install(bpe.path, target, QUIET)
        call = caught.value.hint.removeprefix(f"PUT {SETTINGS} ").split(", or --set")[0]
        assert json.loads(call) == {"persistent": {LOCAL_FILE: True, ML_NODE: False}}
        assert find_models(target.connection) == []
        made = install(bpe.path, target, QUIET, set_cluster_settings=True)
        assert made.settings == {LOCAL_FILE: True, ML_NODE: False}
    finally:
        ask(opensearch_url, "PUT", SETTINGS, {"persistent": {LOCAL_FILE: None, ML_NODE: None}})


def test_packs_and_places_that_do_not_fit(
    bpe: Packed, minilm: Packed, target: Target, url: str, opensearch_url: str, alias: str
) -> None:
    with pytest.raises(EngineError, match=f"no index '{alias}'"):
        install(bpe.path, target, QUIET)
    bpe.load(url, 1)
    with pytest.raises(PackMismatchError) as caught:
        install(minilm.path, target, QUIET)
    for space in (minilm.encoder.metadata.spaces.dense, bpe.encoder.metadata.spaces.dense):
        assert space in caught.value.message
    with pytest.raises(InputError, match="no instruction 'nobody'"):
        install(bpe.path, target, QUIET, instruction="nobody")
    assert find_models(target.connection) == []
    ask(opensearch_url, "PUT", f"/{alias}_plain", {})
    plain = url.replace(alias, f"{alias}_plain")
    with open_target(plain) as opened, pytest.raises(EngineError, match="is an index here"):
        install(bpe.path, opened, QUIET)
    install(bpe.path, target, QUIET)
    for text in ("", " \t"):
        body = text_query(bpe.generation(alias, 1, ["dense", "sparse"]), text)
        with pytest.raises(RefusedError) as refused:
            search(opensearch_url, alias, body)
        assert refused.value.status == 400


def test_a_cluster_without_ml_commons(bpe: Packed) -> None:
    with running_node(ml=False) as base:
        url = f"opensearch://{urlsplit(base).netloc}/demo"
        bpe.load(url, 1)
        bpe.load(url, 2)  # nobody asks for a model
        with open_target(url) as opened, pytest.raises(EngineError, match="lacks opensearch-ml"):
            install(bpe.path, opened, QUIET)
        fails(4, "lacks opensearch-ml (ML Commons", "cluster", "status", "--to", url)


def test_from_the_command_line(
    bpe: Packed, target: Target, url: str, alias: str, tmp_path: Path
) -> None:
    generation = bpe.load(url, 1)
    report, pack = tmp_path / "report.json", bpe.encoder.metadata.pack_id
    output = ok("cluster", "install", bpe.path, "--to", url, "--text", "it's the heart's",
                "--json", report)  # fmt: skip
    told = json.loads(report.read_text(encoding="utf-8"))
    assert told["curl"] in output
    assert told["pipeline"] == pipeline_name(pack)
    answer = subprocess.run(["/bin/bash", "-c", told["curl"]], check=True, capture_output=True)
    hits = json.loads(answer.stdout)["hits"]["hits"]
    assert len(hits) == 10
    assert set(hits[0]["_source"]) & {"dense", "sparse"} == set()
    assert generation.name in ok("cluster", "status", "--to", url, "--json", report)
    (status,) = json.loads(report.read_text(encoding="utf-8"))["packs"]
    assert (status["pack_id"], status["state"]) == (pack, "ready")
    fails(4, "--force", "cluster", "uninstall", bpe.path, "--to", url)
    fails(2, "name a pack, or say --all", "cluster", "uninstall", "--to", url)
    fails(3, "pack.json", "cluster", "uninstall", tmp_path, "--to", url)
    fails(2, "inside an OpenSearch only", "cluster", "status", "--to", "milvus-lite:x.db")
    assert pack in ok("cluster", "uninstall", pack, "--to", url, "--force")
    assert "no pack is installed" in ok("cluster", "status", "--to", url)
