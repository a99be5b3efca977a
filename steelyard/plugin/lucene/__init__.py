"""Lucene impact indexes as Pyserini reads them, with flat dense vectors beside."""
