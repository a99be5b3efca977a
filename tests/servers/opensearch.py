"""The fixture of a real OpenSearch node with k-NN, neural-search and ML Commons.

A test module that wants it says ``pytest_plugins = ["tests.servers.opensearch"]`` and takes the
fixture ``opensearch_url``: one node a test run, shared by all modules that say so. (Imported into
two modules, a session fixture would start twice.)
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.opensearch_node import running_node


@pytest.fixture(scope="session")
def opensearch_url() -> Iterator[str]:
    """Base URL of a node with ML Commons that all tests of the run share.

    Where it cannot be started, the tests fail, and the message says what to install.
    """
    with running_node(quick=True) as url:
        yield url
