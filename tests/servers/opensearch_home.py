"""Where tests find the launcher's home of OpenSearch."""

from steelyard.local_servers.errors import ServerError
from steelyard.local_servers.opensearch_home import opensearch_home

__all__ = ["ServerError", "opensearch_home"]
