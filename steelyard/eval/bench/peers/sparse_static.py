"""sentence-transformers' SparseStaticEmbedding over the pack's own weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steelyard.eval.bench.peers.peer import SPARSE, Opened, Setting, bytes_of
from steelyard.eval.bench.peers.token_weights import write_token_weights

if TYPE_CHECKING:
    from steelyard.types import SparseVectors


@dataclass(frozen=True)
class SparseStatic:
    """``SparseEncoder.encode_query`` on the CPU: each token once, whatever its count."""

    name: str = "sparse-static"
    title: str = "SparseStaticEmbedding"
    gives: str = SPARSE
    install: str = "pip install sentence-transformers"
    most: int | None = None

    def prepare(self, setting: Setting, folder: Path) -> int:
        """Made by the library, and saved by it."""
        from sentence_transformers import SparseEncoder
        from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding
        from transformers import PreTrainedTokenizerFast

        made = folder / "weights"
        made.mkdir()
        write_token_weights(setting, made)
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(made / "tokenizer.json"),
            # It pads to make a rectangle; what stands there is masked out.
            pad_token="[PAD]",  # noqa: S106
            model_max_length=512,
        )
        module = SparseStaticEmbedding.from_json(str(made / "idf.json"), tokenizer)
        model = SparseEncoder(modules=[module], device="cpu")
        model.save(str(folder / "model"), create_model_card=False)
        return bytes_of(folder / "model")

    def open(self, setting: Setting, folder: Path) -> Opened:
        """From the folder."""
        del setting
        from sentence_transformers import SparseEncoder

        model = SparseEncoder(str(folder / "model"), device="cpu", local_files_only=True)

        def many(texts: Sequence[str]) -> object:
            size = max(1, len(texts))
            return model.encode_query(list(texts), batch_size=size, show_progress_bar=False)

        def sparse(texts: Sequence[str]) -> SparseVectors:
            from scipy.sparse import csr_matrix

            from steelyard.types import SparseVectors

            return SparseVectors.from_csr(csr_matrix(many(texts).to_dense().numpy()))  # type: ignore[attr-defined]

        return Opened(
            lambda text: model.encode_query(text, show_progress_bar=False), many, sparse=sparse
        )
