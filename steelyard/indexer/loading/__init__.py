"""Shards to engines: generations filled, checked and published."""
