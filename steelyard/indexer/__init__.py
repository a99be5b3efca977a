"""From a corpus to shards to engines."""
