"""Milvus, server and Lite, as an engine."""
