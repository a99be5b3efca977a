"""LightRetriever's ablations (section 1) with a small budget: one change against the whole."""
