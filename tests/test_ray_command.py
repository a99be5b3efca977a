"""``steelyard encode-documents --ray`` with a real model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from steelyard.cli.app import app
from steelyard.cli.ray_options import ray_settings
from steelyard.errors import InputError
from steelyard.indexer.encoding.shards import read_shard
from steelyard.indexer.ray.settings import RaySettings
from tests.conftest import MODEL, Small, scifact_lines, write_jsonl

pytestmark = pytest.mark.ray


def encode(small: Small, corpus: Path, shards: Path, *more: str) -> None:
    arguments = ["encode-documents", str(corpus), "--pack", str(small.pack), "--model", MODEL]
    arguments += ["--shards", str(shards), "--shard-documents", "8", "--precision", "float32"]
    done = CliRunner().invoke(app, [*arguments, *more], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_two_actors_encode_what_one_process_does(tmp_path: Path, small: Small) -> None:
    corpus = write_jsonl(tmp_path / "c.jsonl", scifact_lines(30))
    encode(small, corpus, tmp_path / "home")
    encode(small, corpus, tmp_path / "ray", "--ray", "--actors", "2")
    homes = sorted((tmp_path / "home").glob("*.parquet"))
    assert len(homes) == 4
    for home in homes:
        expected, found = read_shard(home), read_shard(tmp_path / "ray" / home.name)
        assert found.documents == expected.documents
        # Another number of threads may add in another order.
        np.testing.assert_allclose(found.dense, expected.dense, atol=1e-5)
        for one, other in zip(found.sparse.rows(), expected.sparse.rows(), strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])


def test_options_of_a_cluster_want_ray() -> None:
    with pytest.raises(InputError, match="are for --ray"):
        ray_settings(False, None, 2, 0, 1)
    assert ray_settings(False, None, None, 0, 1) is None
    assert ray_settings(True, "auto", 4, 1, 2) == RaySettings("auto", 4, 1, 2)
