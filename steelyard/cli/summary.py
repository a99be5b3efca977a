"""A query pack in a few lines, for the terminal."""

from __future__ import annotations

from typing import Any

from steelyard.encoders.pack.metadata import PackMetadata


def summary(metadata: PackMetadata) -> dict[str, Any]:
    """What a person wants to know of a pack."""
    dense, sparse, held_out = metadata.dense, metadata.sparse, metadata.provenance.get("held_out")
    rows = {
        "pack": f"{metadata.name} ({metadata.pack_id})",
        "documents by": f"{metadata.document_encoder.kind} {metadata.document_encoder.model}",
        "dense": f"{dense.rows:,} rows x {dense.dims}, {dense.dtype} ({metadata.spaces.dense})",
        "instructions": ", ".join(dense.tables),
        "sparse": f"{sparse.describe()} ({metadata.spaces.sparse})",
        "size": f"{sum(file.bytes for file in metadata.files.values()) / 1e6:,.1f} MB",
    }
    if isinstance(held_out, dict):
        rows["held out"] = (
            f"{held_out.get('kept', 0):.1%} of the full model's reciprocal rank kept on "
            f"{held_out.get('queries')} pseudo-queries, cosine {held_out.get('cosine')}"
        )
    for table, made in metadata.provenance.get("refined", {}).items():
        before, after = (made[f"held_out{when}"]["cosine"] for when in ("_before", ""))
        rows[f"refined {table!r}"] = (
            f"on {made['corpus']['name']}: cosine with the full model {before:.4f} before, "
            f"{after:.4f} after, on {made['held_out']['queries']} held-out pseudo-queries"
        )
    return rows
