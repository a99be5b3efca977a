"""What ``steelyard query --dsl milvus`` prints, sent to a real Milvus 2.3 by a plain client."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster_packs import Packed, causal_pack, questions
from tests.test_cli import fails, ok

pytest_plugins = ["tests.servers.milvus"]
pytestmark = [pytest.mark.milvus]


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    return causal_pack(tmp_path_factory.mktemp("causal"))


def post(address: str, path: str, body: dict[str, Any]) -> Any:
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    assert response.status == 200, answer[:500]
    return json.loads(answer)


def test_the_first_interface_ranks_as_the_engine(
    bpe: Packed, milvus_url: str, milvus_address: str, tmp_path: Path
) -> None:
    generation = bpe.load(milvus_url, 1, arms=["dense"])
    engine = bpe.engine(milvus_url)
    index = engine.open(generation)
    report = tmp_path / "report.json"
    for text in questions()[:100:20]:
        ok("query", text, "--pack", bpe.path, "--to", milvus_url, "--dsl", "milvus",
           "--milvus-api", "v1", "--arm", "dense", "--json", report)  # fmt: skip
        told = json.loads(report.read_text(encoding="utf-8"))
        answer = post(milvus_address, told["path"], told["body"])
        assert answer["code"] == 200, answer
        (expected,) = index.dense.search(bpe.encoder.encode_dense([text]), 10)
        assert [hit["id"] for hit in answer["data"]] == expected.ids
        for hit, score in zip(answer["data"], expected.scores, strict=True):
            assert hit["distance"] == pytest.approx(score, abs=1e-5)
            assert hit["text"]
    fails(4, "has no sparse arm", "query", "x", "--pack", bpe.path, "--to", milvus_url,
          "--dsl", "milvus")  # fmt: skip
    engine.close()
