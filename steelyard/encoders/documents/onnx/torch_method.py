"""Export method ``torch``: the model traced by torch's own exporter, in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steelyard.errors import InputError, first_line, needs_extra

ONE_FILE_BYTES = 1_900_000_000
"""Protobuf ends at 2 GB: weights of larger graphs lie beside them."""


def export_with_torch(model: Any, pooling: str, path: Path, opset: int) -> dict[str, Any]:
    """Trace with batch and length free; returns what ``steelyard_tower.json`` records."""
    with needs_extra("onnx"):
        import onnxscript  # noqa: F401  (torch's exporter imports it late)
    import torch

    transformer = model[0].auto_model
    transformer.config.use_cache = False

    class Tower(torch.nn.Module):
        whole: Any

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
            if pooling == "model":
                return self.whole(inputs)["sentence_embedding"]
            return self.whole(**inputs).last_hidden_state

    tower = Tower()
    tower.whole = model if pooling == "model" else transformer
    size = sum(p.numel() * p.element_size() for p in transformer.parameters())
    ids = torch.full((2, 7), int(model.tokenizer.pad_token_id))
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    try:
        torch.onnx.export(
            tower.eval(),
            (ids, torch.ones_like(ids)),
            str(path),
            input_names=["input_ids", "attention_mask"],
            output_names=["sentence_embedding" if pooling == "model" else "token_embeddings"],
            opset_version=opset,
            dynamo=True,
            dynamic_shapes={"input_ids": free, "attention_mask": free},
            external_data=size > ONE_FILE_BYTES,
            verbose=False,
        )
    except Exception as error:
        message = f"torch cannot export this model: {first_line(error)}"
        raise InputError(message, "try --method optimum") from error
    return {"method": "torch", "torch": torch.__version__, "opset": opset}
