"""The sparse arm's weights by token, as inference-free sparse encoders keep them."""

from __future__ import annotations

import json
from pathlib import Path

from steelyard.eval.bench.peers.peer import Setting


def write_token_weights(setting: Setting, folder: Path) -> None:
    """Write ``tokenizer.json`` and ``idf.json`` (``{token: weight}``), ignored tokens left out."""
    from steelyard.encoders.query.encoder import QueryEncoder

    encoder = QueryEncoder.load(setting.pack)
    ignored = set(encoder.metadata.sparse.ignored_ids)
    weights = {
        token: float(encoder.query_weights[number])
        for token, number in encoder.tokenizer.get_vocab().items()
        if number not in ignored and encoder.query_weights[number] > 0
    }
    (folder / "tokenizer.json").write_text(encoder.tokenizer_json, encoding="utf-8")
    (folder / "idf.json").write_text(json.dumps(weights, ensure_ascii=False), encoding="utf-8")
