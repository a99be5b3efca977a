"""Judged collections, runs, measures, tables and benchmarks."""
