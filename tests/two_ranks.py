"""One of two processes that compute the loss of half a batch: ``two_ranks.py RANK FOLDER``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from steelyard.training.gather import average_gradients, gather
from steelyard.training.losses import LossSettings, light_retriever_loss
from steelyard.training.losses import Representations as Vectors

REFERENCE = Path(__file__).parent / "data" / "lightretriever_qwen2"


def main(rank: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    arrays = np.load(REFERENCE / "losses.npz")
    queries, passages = slice(2 * rank, 2 * rank + 2), slice(6 * rank, 6 * rank + 6)
    mine = {
        "full": arrays["q_dense_reps"][queries],
        "light": arrays["q_emb_reps"][queries],
        "counts": arrays["q_token_id_reps"][queries],
        "document_dense": arrays["p_dense_reps"][passages],
        "document_sparse": arrays["p_sparse_reps"][passages],
    }
    inputs = {name: torch.tensor(rows, requires_grad=True) for name, rows in mine.items()}
    made = light_retriever_loss(
        Vectors(**inputs), LossSettings(kl_dense=1, kl_sparse=1), regulariser_strength=1
    )
    made.total.backward()  # type: ignore[no-untyped-call]
    terms = {name: float(value.detach()) for name, value in made.terms.items()}
    terms["total"] = float(made.total.detach())
    used, unused = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    used.grad = torch.tensor([float(rank), rank + 1.0])
    if rank:
        unused.grad = torch.tensor([2.0, 2.0])
    average_gradients([used, unused])
    assert unused.grad is not None
    found: dict[str, Any] = {
        "only_hard": gather(torch.tensor(arrays["only_hn"][queries])).numpy(),
        "averaged": used.grad.numpy(),
        "unused": unused.grad.numpy(),
    }
    found |= {name: rows.grad.numpy() for name, rows in inputs.items() if rows.grad is not None}
    np.savez(folder / f"{rank}.npz", **found)
    (folder / f"{rank}.json").write_text(json.dumps(terms), encoding="utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
