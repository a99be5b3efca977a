"""One query a line in, one JSON object a line out: id, dense vector, term weights."""

from __future__ import annotations

import json
import sys

from steelyard import QueryEncoder


def main() -> None:
    """Encode standard input with the pack named first on the command line."""
    encoder = QueryEncoder.load(sys.argv[1])
    for line in sys.stdin:
        text = line.rstrip("\n")
        encoded = encoder.encode_query(text)
        ids, weights = encoded.sparse.row(0)
        terms = [encoder.tokenizer.id_to_token(token) for token in ids.tolist()]
        result = {
            "text": text,
            "dense": encoded.dense[0].tolist(),
            "sparse": dict(zip(terms, weights.tolist(), strict=True)),
            "empty": bool(encoded.empty[0]),
        }
        print(json.dumps(result, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
