"""OpenSearch: both arms in one index, fused by the client."""
