"""The model card, README.md of every query pack."""

from __future__ import annotations

import json

from steelyard.encoders.pack.metadata import PackMetadata


def model_card(metadata: PackMetadata) -> str:
    """Markdown for people: what this pack is, how to use it, how it was made and measured."""
    encoder, dense, sparse = metadata.document_encoder, metadata.dense, metadata.sparse
    spaces = metadata.spaces
    instructions = "\n".join(
        f"- `{name}`{' (default)' if name == dense.default_table else ''}: {text or 'none'}"
        for name, text in dense.tables.items()
    )
    return f"""# {metadata.name}

A Steelyard query pack: the whole query side of the document encoder `{encoder.model}`.
A query costs a tokenizer call and a table look-up; no model is run.

```python
from steelyard import QueryEncoder

queries = QueryEncoder.load("PATH TO THIS FOLDER").encode_query(["your query"])
queries.dense, queries.sparse
```

| | |
|---|---|
| pack id | `{metadata.pack_id}` |
| dense space | `{spaces.dense}` |
| sparse space | `{spaces.sparse}` |
| document encoder | {encoder.kind}, `{encoder.model}`, {encoder.pooling} pooling, \
{encoder.max_length} tokens |
| dense | {dense.rows:,} rows x {dense.dims}, {dense.dtype} |
| sparse | {sparse.describe()} |
| licence | {metadata.licence or "not stated: see the document encoder's and the corpus's"} |

Instructions (one table each):

{instructions}

Provenance:

```json
{json.dumps(metadata.provenance, indent=2, ensure_ascii=False)}
```
"""
