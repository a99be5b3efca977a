"""Where tests find the launcher of OpenSearch."""

from steelyard.local_servers.ask import RefusedError, ask
from steelyard.local_servers.errors import ServerError
from steelyard.local_servers.java import find_java
from steelyard.local_servers.opensearch_node import running_node

__all__ = ["RefusedError", "ServerError", "ask", "find_java", "running_node"]
