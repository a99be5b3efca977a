"""The fixture of a real OpenSearch node with k-NN, neural-search and ML Commons.

A test module that wants it says ``pytest_plugins = ["tests.servers.opensearch"]`` and takes the
fixture ``opensearch_url``: one node a test run, shared by all modules that say so. (Imported into
two modules, a session fixture would start twice.)
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.servers.opensearch_node import JDK, find_java, running_node


@pytest.fixture(scope="session")
def opensearch_url() -> Iterator[str]:
    """Base URL of a node with ML Commons that all tests of the run share.

    Skips only where there is no mvn or no JDK that is new enough; anything else is a failure.
    """
    if shutil.which("mvn") is None:
        pytest.skip("a real OpenSearch is laid out with mvn, which is not installed")
    if find_java() is None:
        pytest.skip(f"a real OpenSearch needs a JDK {JDK} or newer, and none is installed")
    with running_node() as url:
        yield url
