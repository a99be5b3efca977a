"""Causal language models as document towers, and their query tables (LightRetriever)."""
