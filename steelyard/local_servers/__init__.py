"""Starts search engines on this machine: for tests, and for ``steelyard dev``."""
