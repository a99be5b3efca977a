"""``steelyard query``: what it prints, sent by a plain HTTP client, ranks as the searcher does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steelyard.plugin.fusion import Fusion
from steelyard.plugin.searcher import Searcher
from tests.cluster_packs import Packed, causal_pack, questions
from tests.servers.opensearch_node import ask
from tests.test_cli import fails, ok

pytest_plugins = ["tests.servers.opensearch", "tests.servers.opensearch_alias"]

CANDIDATES = 50
TEXTS = [*questions()[:200:40], "it's the heart's \"heart\" \\ heart", "İSTANBUL 東京 🚀 the"]


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    return causal_pack(tmp_path_factory.mktemp("causal"))


def printed(packed: Packed, dsl: str, text: str, *more: object) -> Any:
    return json.loads(ok("query", text, "--pack", packed.path, "--dsl", dsl, *more))


@pytest.mark.opensearch
@pytest.mark.parametrize("arm", ["dense", "sparse"])
def test_one_arm_ranks_as_the_searcher(
    arm: str, bpe: Packed, url: str, alias: str, opensearch_url: str
) -> None:
    bpe.load(url, 1)
    with Searcher.open(bpe.path, url) as searcher:
        index = searcher.index()
        for text in TEXTS:
            encoded = bpe.encoder.encode_query(text)
            (expected,) = (
                index.dense.search(encoded.dense, 10)
                if arm == "dense"
                else index.sparse.search(encoded.sparse, 10)
            )
            body = printed(bpe, "opensearch", text, "--index", alias, "--arm", arm)
            hits = ask(opensearch_url, "POST", f"/{alias}/_search", body)["hits"]["hits"]
            by_rank = [hit["_id"] for hit in hits]
            assert sorted(by_rank) == sorted(expected.ids)
            place = {identifier: rank for rank, identifier in enumerate(expected.ids)}
            scores = expected.scores[[place[identifier] for identifier in by_rank]]
            assert (np.diff(scores) <= 1e-5).all()
            assert all({"title", "text"} <= set(hit["_source"]) for hit in hits)
            assert not any({"dense", "sparse"} & set(hit["_source"]) for hit in hits)


@pytest.mark.opensearch
@pytest.mark.parametrize("method", ["rrf", "min-max"])
def test_both_arms_rank_as_the_searcher(
    method: str, bpe: Packed, url: str, alias: str, opensearch_url: str
) -> None:
    bpe.load(url, 1)
    # rrf: documents that tie in an arm stand in the engine's order there, a rank more or less.
    # min-max: the engine's gives .001 to the last of an arm, and squeezes products below 0.
    tolerance = 6e-4 if method == "rrf" else 0.02
    overlaps = []
    with Searcher.open(bpe.path, url, fusion=Fusion(method), candidates=CANDIDATES) as searcher:
        for text in TEXTS:
            body = printed(bpe, "opensearch", text, "--to", url, "--fusion", method,
                           "--candidates", CANDIDATES)  # fmt: skip
            assert "model_id" not in json.dumps(body)
            found = ask(opensearch_url, "POST", f"/{alias}/_search", body)["hits"]["hits"]
            expected = {hit.id: hit.score for hit in searcher.search(text, CANDIDATES).hits}
            best = list(expected)[:10]
            overlaps.append(len({hit["_id"] for hit in found} & set(best)) / len(best))
            for hit, wanted in zip(found, best, strict=True):
                assert expected[hit["_id"]] == pytest.approx(expected[wanted], abs=tolerance)
    print(f"{method}: overlap@10 with the searcher {np.mean(overlaps):.3f}")


@pytest.mark.opensearch
def test_a_call_with_a_filter(bpe: Packed, url: str, alias: str, opensearch_url: str) -> None:
    generation = bpe.load(url, 1)
    some = [document.id for document in bpe.documents.documents[:3]]
    condition = json.dumps({"terms": {"id": some}})
    for arm in ("dense", "sparse", "hybrid"):
        body = printed(bpe, "opensearch", "the heart", "--to", url, "--native-filter", condition,
                       "--arm", arm)  # fmt: skip
        hits = ask(opensearch_url, "POST", f"/{alias}/_search", body)["hits"]["hits"]
        assert {hit["_id"] for hit in hits} <= set(some)
        assert hits
        assert {hit["_index"] for hit in hits} == {generation.name}


@pytest.mark.opensearch
def test_a_pack_of_another_index(bpe: Packed, tiny_pack: Path, url: str, alias: str) -> None:
    fails(4, f"no index '{alias}'", "query", "x", "--pack", bpe.path, "--to", url,
          "--dsl", "opensearch")  # fmt: skip
    bpe.load(url, 1)
    fails(3, bpe.encoder.metadata.spaces.dense, "query", "the", "--pack", tiny_pack, "--to", url,
          "--dsl", "opensearch")  # fmt: skip


def test_filters_of_ours(bpe: Packed) -> None:
    """The same condition in both languages; offline, fields are declared."""
    more = [
        "--index",
        "demo",
        "--arm",
        "dense",
        "--metadata",
        "brand:keyword,price:float",
        "--filter",
        '{"and": [{"eq": {"brand": "a"}}, {"range": {"price": {"lt": 5}}}]}',
    ]
    clause = printed(bpe, "opensearch", "the heart", *more)["query"]["knn"]["dense"]
    assert clause["filter"] == {
        "bool": {
            "filter": [
                {"term": {"metadata.brand": {"value": "a"}}},
                {"range": {"metadata.price": {"lt": 5}}},
            ]
        }
    }
    expression = printed(bpe, "milvus", "the heart", *more)["filter"]
    assert 'm_brand == "a"' in expression
    assert "m_price < 5.0" in expression


def test_bodies_for_milvus(bpe: Packed) -> None:
    """As the REST interface v2 of Milvus 2.4 and newer reads them."""
    encoded = bpe.encoder.encode_query("the heart")
    ids, weights = encoded.sparse.row(0)
    body = printed(
        bpe, "milvus", "the heart", "--index", "demo", "--native-filter", "m_year > 2000"
    )
    assert body["collectionName"] == "demo"
    assert body["rerank"] == {"strategy": "rrf", "params": {"k": 60}}
    dense, sparse = body["search"]
    assert {search["limit"] for search in body["search"]} == {100}
    assert {search["filter"] for search in body["search"]} == {"m_year > 2000"}
    assert (dense["annsField"], sparse["annsField"]) == ("dense", "sparse")
    assert np.array_equal(np.array(dense["data"], np.float32), encoded.dense)
    (terms,) = sparse["data"]
    assert list(map(int, terms)) == ids.tolist()
    assert np.array_equal(np.array(list(terms.values()), np.float32), weights)
    alone = printed(bpe, "milvus", "the heart", "--index", "demo", "--arm", "sparse", "--k", 7)
    assert (alone["annsField"], alone["limit"], alone["data"]) == ("sparse", 7, [terms])
    assert alone["searchParams"]["metricType"] == "IP"
    old = printed(bpe, "milvus", "the heart", "--index", "demo", "--arm", "dense",
                  "--milvus-api", "v1")  # fmt: skip
    assert np.array_equal(np.array([old["vector"]], np.float32), encoded.dense)


def test_a_call_is_quoted_and_has_no_secret(
    bpe: Packed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STEELYARD_OPENSEARCH_USER", "reader")
    monkeypatch.setenv("STEELYARD_OPENSEARCH_PASSWORD", "hunter2")
    monkeypatch.setenv("STEELYARD_MILVUS_TOKEN", "hunter2")
    report = tmp_path / "report.json"
    for dsl, header in (("opensearch", "$STEELYARD_OPENSEARCH_PASSWORD"),
                        ("milvus", "Bearer $STEELYARD_MILVUS_TOKEN")):  # fmt: skip
        call = ok("query", "it's 'the' heart", "--pack", bpe.path, "--dsl", dsl, "--index",
                  "demo", "--curl", "--json", report)  # fmt: skip
        assert header in call
        assert "hunter2" not in call
        assert json.loads(report.read_text(encoding="utf-8"))["method"] == "POST"


def test_bad_input(bpe: Packed, tiny_pack: Path, tmp_path: Path) -> None:
    base = ["query", "the heart", "--pack", bpe.path, "--index", "demo"]
    cases: list[tuple[str, list[object]]] = [
        ("unknown language 'lucene'", ["--dsl", "lucene"]),
        ("unknown arm 'both'", ["--dsl", "milvus", "--arm", "both"]),
        ("say --to URL, or --index", ["--dsl", "milvus", "--to", "opensearch://h/demo"]),
        ("200 hits of 100 candidates", ["--dsl", "opensearch", "--k", 200]),
        ("10,001 hits, OpenSearch gives", ["--dsl", "opensearch", "--candidates", 10_001]),
        ("16,385 hits, Milvus gives", ["--dsl", "milvus", "--candidates", 16_385]),
        ("does not join arms by min-max", ["--dsl", "milvus", "--fusion", "min-max"]),
        ("v1 of Milvus searches the dense", ["--dsl", "milvus", "--milvus-api", "v1"]),
        ("unknown REST interface 'v3'", ["--dsl", "milvus", "--milvus-api", "v3"]),
        (
            "the native filter is no JSON object",
            ["--dsl", "opensearch", "--native-filter", "brand = x"],
        ),
        ("the filter is not JSON", ["--dsl", "opensearch", "--filter", "brand = x"]),
        ("no metadata field 'brand'", ["--dsl", "milvus", "--filter", '{"exists": "brand"}']),
        ("both --filter and", ["--dsl", "milvus", "--filter", "{}", "--native-filter", "x"]),
        ("unknown fusion 'sum'", ["--dsl", "opensearch", "--fusion", "sum"]),
        ("no instruction 'nobody'", ["--dsl", "opensearch", "--instruction", "nobody"]),
    ]
    for message, more in cases:
        fails(2, message, *base, *more)
    for message, url in (
        ("this is a pair", "dense=opensearch://h/n,sparse=opensearch://h/n"),
        ("for an engine of 'milvus'", "milvus://h/n"),
    ):
        fails(2, message, *base[:4], "--dsl", "opensearch", "--to", url)
    for dsl in ("opensearch", "milvus"):
        fails(2, "no token of this query", "query", "", "--pack", tiny_pack, "--index", "demo",
              "--dsl", dsl)  # fmt: skip
    fails(
        3,
        "no query pack at",
        "query",
        "x",
        "--pack",
        tmp_path / "none",
        "--index",
        "demo",
        "--dsl",
        "milvus",
    )
