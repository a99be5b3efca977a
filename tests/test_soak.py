"""``kill -9`` at random moments of a whole job, on a real engine each."""

from __future__ import annotations

from pathlib import Path

import pytest

from steelyard.eval.bench.soak import SoakSettings, soak
from steelyard.progress import SilentProgress

pytest_plugins = ["tests.servers.opensearch"]

KILLS = 6


def test_killed_jobs_on_milvus_lite(tmp_path: Path) -> None:
    report = soak(
        tmp_path,
        lambda alias: f"milvus-lite://{tmp_path / alias}.db?name={alias}",
        SoakSettings(kills=KILLS),
        SilentProgress(),
    )
    assert report.kills.total() == KILLS
    assert report.documents == 3000


@pytest.mark.opensearch
def test_killed_jobs_on_opensearch(tmp_path: Path, opensearch_url: str) -> None:
    node = opensearch_url.removeprefix("http://")
    report = soak(
        tmp_path,
        lambda alias: f"opensearch://{node}/{alias}",
        SoakSettings(kills=KILLS),
        SilentProgress(),
    )
    assert report.kills.total() == KILLS
    assert report.documents == 3000
