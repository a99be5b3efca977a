"""Query packs and encoded corpora for Pyserini: encoders for its searchers, folders it reads."""
