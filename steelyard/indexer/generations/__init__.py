"""Generations of an index: checked, switched to and from, kept, listed and dropped."""
