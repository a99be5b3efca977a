"""Any sentence-transformers model as a frozen dense document encoder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.documents.model_source import locate_model
from steelyard.encoders.pack.metadata import DocumentEncoderSpec
from steelyard.errors import InputError, PackMismatchError, first_line, needs_extra
from steelyard.types import DenseVectors, DocumentVectors

KIND = "sentence-transformers"
DEFAULT_MAX_LENGTH = 512
PRECISIONS = ("auto", "float32", "bfloat16")


class SentenceTransformersEncoder:
    """A frozen model, by hub name, folder or installed package.

    Args:
        model: see ``locate_model``.
        revision: hub revision; None is the newest.
        max_length: cut documents to this many tokens; None is the model's own limit.
        precision: ``bfloat16`` runs matrix products in bfloat16 (weights, sums and norms stay
            float32) and is about twice as fast on hardware that has it; ``auto`` takes it where
            the processor does, else float32.
        prompts: texts put before a ``document`` or ``query``; one that is not named is the
            model's own.
        device: a torch device; None chooses.

    Raises:
        InputError: the model cannot be opened.
        MissingExtraError: sentence-transformers is not installed.
    """

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        max_length: int | None = None,
        precision: str = "auto",
        prompts: Mapping[str, str] | None = None,
        device: str | None = None,
    ) -> None:
        self.precision = native_precision(precision)
        self._model = _open(locate_model(model), revision, device)
        self._model.max_seq_length = int(
            max_length or self._model.max_seq_length or DEFAULT_MAX_LENGTH
        )
        self._lengths: Any = None
        self._spec = DocumentEncoderSpec(
            kind=KIND,
            model=str(Path(model).resolve()) if Path(model).is_dir() else model,
            revision=revision,
            weights=_weights_hash(self._model),
            pooling=_pooling(self._model),
            prompts={
                "document": self._prompt("document", "passage"),
                "query": self._prompt("query"),
                **(prompts or {}),
            },
            max_length=self._model.max_seq_length,
        )

    @classmethod
    def from_spec(
        cls, spec: DocumentEncoderSpec, *, model: str | None = None, precision: str = "auto"
    ) -> SentenceTransformersEncoder:
        """Open the tower that a pack names, or ``model`` if it has moved, and prove it is it.

        Raises:
            PackMismatchError: the model found makes vectors of another space.
        """
        found = cls(
            model or spec.model,
            revision=spec.revision,
            max_length=spec.max_length,
            precision=precision,
            prompts=spec.prompts,
        )
        ours, theirs = (s.dense_space(found.dims).id for s in (found.spec, spec))
        if ours != theirs:
            raise PackMismatchError(
                f"the pack was made for {spec.model} (space {theirs}), {model or spec.model} as "
                f"installed here is another (space {ours})",
                "point --model to the same weights, or distill a new pack",
            )
        return found

    @property
    def spec(self) -> DocumentEncoderSpec:
        """How to open this model again."""
        return self._spec

    @property
    def dims(self) -> int:
        """Length of the vectors."""
        return int(self._model.get_embedding_dimension())

    def tokenizer_json(self) -> str:
        """The model's own tokenizer, as tokenizer.json text."""
        backend = getattr(self._model.tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise InputError(
                f"{self._spec.model} has no fast tokenizer", "convert it to tokenizer.json first"
            )
        return str(backend.to_str())

    def encode_document(self, texts: Sequence[str]) -> DocumentVectors:
        """Dense vectors of one batch, ``[n, d]``, with the model's document prompt."""
        return DocumentVectors(dense=self._encode(texts, self._spec.prompts["document"]))

    def encode_query(self, texts: Sequence[str]) -> DenseVectors:
        """The full model's query vectors of one batch, with its query prompt."""
        return self._encode(texts, self._spec.prompts["query"])

    def encode_tokens(self, ids: NDArray[np.int64]) -> DenseVectors:
        """Vectors of single vocabulary entries: first special, entry, last special."""
        import torch

        alone = self._model.tokenizer("x", add_special_tokens=False)["input_ids"]
        template = self._model.tokenizer("x")["input_ids"]
        place = next(i for i in range(len(template)) if template[i : i + len(alone)] == alone)
        before, after = template[:place][:1], template[place + len(alone) :][-1:]
        around = np.tile(np.array([*before, 0, *after]), (len(ids), 1))
        around[:, len(before)] = ids
        batch = torch.from_numpy(around).to(self._model.device)
        with torch.inference_mode(), self._autocast():
            output = self._model.forward(
                {"input_ids": batch, "attention_mask": torch.ones_like(batch)}
            )
            vectors = torch.nn.functional.normalize(output["sentence_embedding"].float(), dim=1)
        return np.asarray(vectors.cpu().numpy(), dtype=np.float32)

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of each text, special tokens included, at most the model's limit."""
        if self._lengths is None:
            from tokenizers import Tokenizer

            self._lengths = Tokenizer.from_str(self.tokenizer_json())
            self._lengths.no_padding()
            self._lengths.no_truncation()
        encodings = self._lengths.encode_batch_fast(list(texts))
        lengths = np.fromiter((len(e.ids) for e in encodings), dtype=np.int64, count=len(texts))
        return np.minimum(lengths, self._spec.max_length)

    def _encode(self, texts: Sequence[str], prompt: str) -> DenseVectors:
        import torch

        with torch.inference_mode(), self._autocast():
            vectors = self._model.encode(
                list(texts),
                batch_size=max(1, len(texts)),
                prompt=prompt,
                convert_to_tensor=True,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
        return np.asarray(vectors.float().cpu().numpy(), dtype=np.float32)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        import torch

        if self.precision != "bfloat16":
            return contextlib.nullcontext()
        return torch.autocast(self._model.device.type, dtype=torch.bfloat16)

    def _prompt(self, *names: str) -> str:
        for name in names:
            prompt = self._model.prompts.get(name)
            if prompt:
                return str(prompt)
        return ""


def _open(source: str, revision: str | None, device: str | None) -> Any:
    with needs_extra("index"):
        import transformers
        from sentence_transformers import SentenceTransformer
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    try:
        return SentenceTransformer(source, revision=revision, device=device)
    except Exception as error:  # whatever a foreign folder makes the libraries raise
        raise InputError(
            f"cannot open the model {source!r}: {first_line(error)}",
            "give a sentence-transformers name, a model folder, or an installed package",
        ) from error


def native_precision(precision: str) -> str:
    """What ``auto`` means on this machine: ``bfloat16`` where the hardware has it.

    Raises:
        InputError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise InputError(
            f"unknown precision {precision!r}", f"choose one of {', '.join(PRECISIONS)}"
        )
    if precision != "auto":
        return precision
    with needs_extra("index"):
        import torch
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    flags = Path("/proc/cpuinfo")
    has = flags.is_file() and {"avx512_bf16", "amx_bf16"} & set(flags.read_text().split())
    return "bfloat16" if has else "float32"


def _weights_hash(model: Any) -> str:
    """SHA-256 over all parameters: the same wherever they lie and however modules are named."""
    import torch

    digests = []
    for tensor in model.parameters():
        array = tensor.detach().cpu().contiguous()
        digest = hashlib.sha256(f"{array.dtype}:{list(array.shape)}\n".encode())
        digest.update(memoryview(array.view(-1).view(torch.uint8).numpy()))
        digests.append(digest.hexdigest())
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


def _pooling(model: Any) -> str:
    """How token states become one vector: the pooling module's mode, or its configuration."""
    for module in model:
        if type(module).__name__ == "Pooling":
            mode = module.get_config_dict().get("pooling_mode")
            if isinstance(mode, str):
                return mode
            return json.dumps(module.get_config_dict(), sort_keys=True)
    return "model"
