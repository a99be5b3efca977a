"""A causal language model as document encoder: both arms from one forward pass.

LightRetriever (section 1): dense is the hidden state at eos after the final norm, cut to ``dims``
and normalised; sparse is the LM head's largest logits over the document's tokens, bos and eos
left out by position.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.causal.model import CausalModel, open_causal_model
from steelyard.encoders.causal.prompt_cache import PROBE_TOKENS, PromptCache
from steelyard.encoders.causal.source import locate_causal_model
from steelyard.encoders.causal.sparse_head import SLICE_TOKENS, sparse_head
from steelyard.encoders.causal.tokens import CausalTokenizer, padded, read_causal_tokenizer
from steelyard.encoders.pack.metadata import LM_HEAD, DocumentEncoderSpec, PackMetadata
from steelyard.encoders.pack.spaces import vocabulary_hash
from steelyard.errors import InputError, PackMismatchError, SteelyardError
from steelyard.types import DenseVectors, DocumentVectors, SparseVectors, l2_normalise

KIND = "causal"
POOLING = "eos"
DEFAULT_MAX_LENGTH = 512
DEFAULT_MAX_TERMS = 256


class CausalEncoder:
    """A causal LLM, by folder, GGUF file, installed package or hub name.

    Args:
        model: see ``locate_causal_model``.
        adapter: LoRA adapter folder.
        gguf_file: which GGUF file of the folder.
        revision: hub revision.
        max_length: documents are cut to this many tokens, bos and eos included.
        dims: keep the first so many components of a vector (MRL); None keeps all.
        sparse: serve the sparse arm, by the LM head.
        max_terms: heaviest terms kept a document; None keeps all.
        query_prompt: put before a query by ``encode_query``.
        query_max_length: queries of ``encode_query`` are cut to this, prompt included.
        lowercase: lower-case all texts.
        precision, device: see ``open_causal_model``.
        slice_tokens: tokens whose logits are held at a time.
        say: told when a batch was halved.

    Raises:
        InputError: the model, tokenizer, adapter or a setting cannot be used.
    """

    def __init__(
        self,
        model: str,
        *,
        adapter: str | None = None,
        gguf_file: str | None = None,
        revision: str | None = None,
        max_length: int = DEFAULT_MAX_LENGTH,
        dims: int | None = None,
        sparse: bool = True,
        max_terms: int | None = DEFAULT_MAX_TERMS,
        query_prompt: str = "",
        query_max_length: int = 512,
        lowercase: bool = True,
        precision: str = "auto",
        device: str | None = None,
        slice_tokens: int = SLICE_TOKENS,
        say: Callable[[str], None] | None = None,
    ) -> None:
        if max_length < 2:
            raise InputError(f"max length {max_length}", "bos and eos alone are 2 tokens")
        files = locate_causal_model(model, adapter=adapter, gguf_file=gguf_file, revision=revision)
        self.model = open_causal_model(files, precision=precision, device=device)
        self.tokens = read_causal_tokenizer(
            files,
            family=self.model.family,
            embedding_rows=self.model.rows,
            lowercase=lowercase,
        )
        _check_rows(self.tokens, self.model, model, sparse=sparse)
        self.dims = self.model.dims if dims is None else dims
        if not 1 <= self.dims <= self.model.dims:
            raise InputError(
                f"dims {self.dims}, the model has {self.model.dims}", "cut to fewer, not more"
            )
        self.precision = self.model.precision
        self.sparse = sparse
        self.max_terms = max_terms
        self.slice_tokens = slice_tokens
        self.query_max_length = query_max_length
        self._most_tokens: int | None = None
        self._say = say or (lambda _: None)
        if self.tokens.made:
            self._say(
                f"the tokenizer lacks {', '.join(self.tokens.made)}: made, in a spare row of the "
                f"embedding"
            )
        self._spec = DocumentEncoderSpec(
            kind=KIND,
            model=_portable(model),
            revision=revision,
            weights=_space_hash(files.weights_hash(), self.tokens),
            pooling=POOLING,
            prompts={"document": "", "query": query_prompt},
            max_length=max_length,
            adapter=None if adapter is None else _portable(adapter),
            gguf_file=files.gguf_file,
            lowercase=lowercase,
        )

    @classmethod
    def from_pack(
        cls,
        metadata: PackMetadata,
        *,
        model: str | None = None,
        adapter: str | None = None,
        precision: str = "auto",
        device: str | None = None,
        say: Callable[[str], None] | None = None,
    ) -> CausalEncoder:
        """Open the tower that a pack names, or where it is now, and prove it is it.

        Raises:
            PackMismatchError: the model found makes vectors of another space.
        """
        spec = metadata.document_encoder
        found = cls(
            **where_now(spec, model, adapter),
            max_length=spec.max_length,
            dims=metadata.dense.dims,
            sparse=metadata.sparse.kind == LM_HEAD,
            max_terms=metadata.sparse.max_terms,
            query_prompt=spec.prompts.get("query", ""),
            lowercase=spec.lowercase,
            precision=precision,
            device=device,
            say=say,
        )
        if found.spec.weights != spec.weights:
            raise PackMismatchError(
                f"the pack was made for {spec.model} (weights {spec.weights[:12]}), "
                f"{model or spec.model} as found here is another ({found.spec.weights[:12]})",
                "point --model and --adapter to the same weights, or build a new pack",
            )
        return found

    @property
    def spec(self) -> DocumentEncoderSpec:
        """How to open this model again."""
        return self._spec

    @property
    def vocabulary_size(self) -> int:
        """Columns of the sparse vectors: the tokenizer's tokens."""
        return self.tokens.rows

    def tokenizer_json(self) -> str:
        """The tokenizer of the query side."""
        return self.tokens.text

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of each text, bos and eos included, at most ``max_length``."""
        rows = self.tokens.ids(texts, self._spec.max_length)
        return np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))

    def encode_document(self, texts: Sequence[str]) -> DocumentVectors:
        """Both arms of one batch; one that does not fit in memory is halved, and so on.

        Returns:
            Dense ``[n, dims]``; sparse n rows, or None without a sparse arm.
        """
        return self._encode(self.tokens.ids(texts, self._spec.max_length), self._forward)

    def encode_query(self, texts: Sequence[str]) -> DenseVectors:
        """The full model on prompt and query, ``[n, dims]``: what a look-up is compared with.

        The prompt is read once, where the model can go on from it.
        """
        rows = self.tokens.ids(texts, self.query_max_length, self._spec.prompts["query"])
        dense = self._encode(rows, self._forward_queries).dense
        assert dense is not None  # noqa: S101 - the dense arm is always served
        return dense

    @cached_property
    def _prompt(self) -> PromptCache:
        most = max(0, self.query_max_length - PROBE_TOKENS)
        ids = self.tokens.prompt_ids(self._spec.prompts["query"])[:most]
        return PromptCache(self.model, ids, self.tokens.eos)

    def _encode(
        self, rows: list[list[int]], forward: Callable[[list[list[int]]], DocumentVectors]
    ) -> DocumentVectors:
        import torch

        padded = len(rows) * max(map(len, rows), default=0)
        if self._most_tokens is None or padded <= self._most_tokens or len(rows) == 1:
            try:
                with torch.inference_mode():
                    return forward(rows)
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                if len(rows) <= 1:
                    raise SteelyardError(
                        f"a document of {padded} tokens does not fit in memory on "
                        f"{self.model.device}",
                        "lower --max-length or --precision, or use a larger device",
                    ) from error
                self._most_tokens = padded // 2
                self._say(f"out of memory at {padded:,} tokens a batch: going on with half")
            # Outside the handler, so that the failed batch's tensors are gone.
            if self.model.device.type == "cuda":
                torch.cuda.empty_cache()
        half = len(rows) // 2
        first, second = (self._encode(part, forward) for part in (rows[:half], rows[half:]))
        return _joined(first, second)

    def _forward_queries(self, rows: list[list[int]]) -> DocumentVectors:
        if not rows:
            return DocumentVectors(np.zeros((0, self.dims), dtype=np.float32))
        states = self._prompt.last_states(rows)[:, : self.dims]
        return DocumentVectors(l2_normalise(states.float().cpu().numpy()))

    def _forward(self, rows: list[list[int]]) -> DocumentVectors:
        import torch

        lengths = [len(row) for row in rows]
        ids = padded(rows, self.tokens.eos)
        if not ids.size:
            empty = np.zeros((0, self.dims), dtype=np.float32)
            return DocumentVectors(empty, SparseVectors.from_rows([], self.vocabulary_size))
        # No mask: the padding comes after the text, where causal attention never looks.
        hidden = self.model.backbone(
            input_ids=torch.from_numpy(ids).to(self.model.device), use_cache=False
        ).last_hidden_state
        place = torch.arange(len(rows), device=hidden.device)
        last = torch.tensor(lengths, device=hidden.device) - 1
        dense = hidden[place, last, : self.dims].float().cpu().numpy()
        if not self.sparse:
            return DocumentVectors(l2_normalise(dense))
        inner = torch.cat([hidden[i, 1 : length - 1] for i, length in enumerate(lengths)])
        del hidden
        sparse_rows = sparse_head(
            inner,
            [length - 2 for length in lengths],
            self.model,
            self.vocabulary_size,
            self.max_terms,
            self.slice_tokens,
        )
        return DocumentVectors(l2_normalise(dense), sparse_rows)


def _check_rows(
    tokens: CausalTokenizer, model: CausalModel, model_name: str, *, sparse: bool
) -> None:
    if tokens.rows > model.rows:
        made = f" ({', '.join(tokens.made)} among them, which it lacked)" if tokens.made else ""
        raise InputError(
            f"{model_name}: the tokenizer has {tokens.rows:,} tokens{made}, the embedding "
            f"{model.rows:,} rows",
            "give the tokenizer that belongs to the model"
            + (", with a bos and an eos token" if tokens.made else ""),
        )
    if not sparse:
        return
    if model.head is None:
        raise InputError(
            f"{model_name} has no LM head: its checkpoint holds the backbone only",
            "give the causal language model itself, or another --sparse",
        )
    columns = int(getattr(model.head, "out_features", model.rows))
    if tokens.rows > columns:
        raise InputError(
            f"{model_name}: the tokenizer has {tokens.rows:,} tokens, the LM head {columns:,}",
            "give the tokenizer that belongs to the model",
        )


def _space_hash(weights: str, tokens: CausalTokenizer) -> str:
    """Weights and tokenizer as one hash: the vectors depend on both."""
    parts = f"{weights}\n{vocabulary_hash(tokens.text)}\n{tokens.bos}\n{tokens.eos}"
    return hashlib.sha256(parts.encode()).hexdigest()


def where_now(spec: DocumentEncoderSpec, model: str | None, adapter: str | None) -> dict[str, Any]:
    """Where a pack's tower is, or has moved to: what ``locate_causal_model`` takes.

    The pack's GGUF file stays its name, unless the model has moved to where no such file is.
    """
    gguf_file = spec.gguf_file
    if model and gguf_file and not (Path(model).expanduser() / gguf_file).is_file():
        gguf_file = None
    return {
        "model": model or spec.model,
        "adapter": adapter or spec.adapter,
        "gguf_file": gguf_file,
        "revision": spec.revision,
    }


def _portable(name: str) -> str:
    """A path as an absolute one, so that a pack finds its model from any folder."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name


def _out_of_memory(error: BaseException) -> bool:
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error)
    return "out of memory" in text or "not enough memory" in text


def _joined(first: DocumentVectors, second: DocumentVectors) -> DocumentVectors:
    assert first.dense is not None  # noqa: S101 - the dense arm is always served
    assert second.dense is not None  # noqa: S101
    sparse = None
    if first.sparse is not None and second.sparse is not None:
        rows = [*first.sparse.rows(), *second.sparse.rows()]
        sparse = SparseVectors.from_rows(rows, first.sparse.vocabulary_size)
    return DocumentVectors(np.concatenate([first.dense, second.dense]), sparse)
