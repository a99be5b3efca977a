"""Encoding on a Ray cluster: the same shards and journal as in one process."""
