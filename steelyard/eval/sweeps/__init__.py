"""Sweeps: quality against a setting, on vectors that are read once."""
