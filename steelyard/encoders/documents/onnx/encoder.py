"""Any encoder in ONNX form as a frozen dense document encoder, run by onnxruntime.

A tower folder holds ``model.onnx`` (its external data files beside it, if it has any) and
``tokenizer.json``. What these cannot tell, how states are pooled and what is put before a text,
may stand in ``steelyard_tower.json`` (format: ``settings``); arguments go before it. Nothing is
guessed: a graph of token states without a pooling is refused.

Pooling ``cls`` takes the first of the graph's token states, ``last`` the last, ``mean`` their
mean, padding aside; ``model`` means that the graph itself gives one vector a text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.documents.onnx.folder import (
    MODEL,
    TOKENIZER,
    checked_length,
    open_tokenizer,
    pad_id,
    weights_hash,
)
from steelyard.encoders.documents.onnx.session import choose_output, graph_inputs, open_session
from steelyard.encoders.documents.onnx.settings import PROMPTS, TowerSettings, read_settings
from steelyard.encoders.pack.metadata import DocumentEncoderSpec
from steelyard.errors import InputError, PackMismatchError, first_line
from steelyard.types import DenseVectors, DocumentVectors, l2_normalise

KIND = "onnx"


class OnnxEncoder:
    """A frozen encoder in ONNX form.

    The weights of its space are the SHA-256 over model.onnx, its external data and the
    tokenizer, so another export of the same model is another space.

    Args:
        model: the tower's folder.
        max_length: cut texts to this many tokens, special tokens included; None takes what
            steelyard_tower.json says, else the model's limit (tokenizer_config.json and
            config.json, if they are there), else 512.
        prompts: texts put before a ``document`` or ``query``; one not named is the tower's own.
        pooling: ``cls``, ``mean``, ``last`` or ``model``; None takes what steelyard_tower.json
            says, and ``model`` where the graph gives one vector a text.
        precision: ``auto`` or ``float32``, which is the same here.
        device: ``cpu`` or ``cuda``; None takes CUDA where onnxruntime has it.
        threads: processor threads of one batch; None takes all this process may use.

    Raises:
        InputError: a file is missing or damaged, or a setting does not fit the graph.
        MissingExtraError: onnx or onnxruntime is not installed.
    """

    precision = "float32"

    def __init__(
        self,
        model: str,
        *,
        max_length: int | None = None,
        prompts: Mapping[str, str] | None = None,
        pooling: str | None = None,
        precision: str = "auto",
        device: str | None = None,
        threads: int | None = None,
    ) -> None:
        if precision not in ("auto", "float32"):
            raise InputError(f"precision {precision!r} of an ONNX tower", "it runs in float32")
        folder = Path(model).expanduser().resolve()
        for name in (MODEL, TOKENIZER):
            if not (folder / name).is_file():
                hint = "make a tower with 'steelyard tower export'"
                raise InputError(f"no {name} in {folder}", hint)
        stored = read_settings(folder)
        asked = pooling or (stored.pooling if stored else None)
        own = {**dict.fromkeys(PROMPTS, ""), **(stored.prompts if stored else {})}
        given = TowerSettings(asked or "model", {**own, **(prompts or {})})
        given.check("arguments")
        self._text, self._tokenizer = open_tokenizer(folder / TOKENIZER)
        self._pad = pad_id(self._tokenizer, folder)
        limit = max_length or (stored.max_length if stored else None)
        length = checked_length(limit, self._tokenizer, folder)
        self._tokenizer.no_padding()  # done here, by id, so that the mask is ours
        self._tokenizer.enable_truncation(length)
        weights = weights_hash(folder, self._text)
        self._session = open_session(folder / MODEL, device, threads)
        self._inputs = graph_inputs(self._session, folder / MODEL)
        found = {o.name: i for i, o in enumerate(self._session.get_outputs())}
        self._outputs = list(found)
        probe = self._run(np.array([self._tokenizer.encode("x").ids or [self._pad]]), None)
        ranks = {name: probe[i].ndim for name, i in found.items()}
        name, chosen = choose_output(ranks, asked, folder / MODEL)
        self._outputs = [name]
        self._dims = int(probe[found[name]].shape[-1])
        self._spec = DocumentEncoderSpec(
            kind=KIND,
            model=str(folder),
            revision=None,
            weights=weights,
            pooling=chosen,
            prompts=given.prompts,
            max_length=length,
        )

    @classmethod
    def from_spec(
        cls, spec: DocumentEncoderSpec, *, model: str | None = None, precision: str = "auto"
    ) -> OnnxEncoder:
        """Open the tower that a pack names, or ``model`` if it has moved, and prove it is it.

        Raises:
            PackMismatchError: the tower found makes vectors of another space.
        """
        found = cls(
            model or spec.model,
            max_length=spec.max_length,
            prompts=spec.prompts,
            pooling=spec.pooling,
            precision=precision,
        )
        ours, theirs = (s.dense_space(found.dims).id for s in (found.spec, spec))
        if ours != theirs:
            raise PackMismatchError(
                f"the pack was made for {spec.model} (space {theirs}), {model or spec.model} as "
                f"it is here is another (space {ours})",
                "point --model to the same files, or distill a new pack",
            )
        return found

    @property
    def spec(self) -> DocumentEncoderSpec:
        """How to open this tower again."""
        return self._spec

    @property
    def dims(self) -> int:
        """Length of the vectors."""
        return self._dims

    def tokenizer_json(self) -> str:
        """The folder's tokenizer.json, as it is."""
        return self._text

    def encode_document(self, texts: Sequence[str]) -> DocumentVectors:
        """Dense vectors of one batch, ``[n, d]``, with the document prompt.

        What the graph gives is not judged: a NaN in it is a NaN here.

        Raises:
            InputError: the graph failed on the batch.
        """
        return DocumentVectors(dense=self._vectors(self._tokenise(texts, "document")))

    def encode_query(self, texts: Sequence[str]) -> DenseVectors:
        """The full model's query vectors of one batch ``[n, d]``, with the query prompt."""
        return self._vectors(self._tokenise(texts, "query"))

    def encode_tokens(self, ids: NDArray[np.int64]) -> DenseVectors:
        """Vectors ``[n, d]`` of single vocabulary entries: first special, entry, last special."""
        alone = self._tokenizer.encode("x")
        special = alone.special_tokens_mask
        if all(special):
            raise InputError("the tokenizer drops the letter x", "use a complete tokenizer.json")
        before, after = alone.ids[: special[0]], alone.ids[len(special) - special[-1] :]
        return self._vectors([[*before, int(token), *after] for token in ids])

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of each text ``[n]``, prompt and special tokens included, after cutting."""
        return np.array([len(ids) for ids in self._tokenise(texts, "document")], dtype=np.int64)

    def _tokenise(self, texts: Sequence[str], role: str) -> list[list[int]]:
        prompt = self._spec.prompts[role]
        encodings = self._tokenizer.encode_batch_fast([prompt + text for text in texts])
        return [encoding.ids for encoding in encodings]

    def _vectors(self, rows: list[list[int]]) -> DenseVectors:
        """Unit vectors ``[n, d]``; a text without a single token has a zero row."""
        vectors = np.zeros((len(rows), self._dims), dtype=np.float32)
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        known = np.flatnonzero(lengths)
        groups = [known] if len(known) else []
        if "attention_mask" not in self._inputs:  # such a graph cannot be told what is padding
            groups = [np.flatnonzero(lengths == n) for n in np.unique(lengths[known])]
        for group in groups:
            mask = np.arange(lengths[group].max()) < lengths[group, None]
            ids = np.full(mask.shape, self._pad, dtype=np.int64)
            ids[mask] = np.concatenate([rows[i] for i in group])
            output = self._run(ids, mask)[0].astype(np.float32)
            pooling = self._spec.pooling
            vectors[group] = output if pooling == "model" else pool(output, mask, pooling)
        with np.errstate(invalid="ignore", over="ignore"):
            return l2_normalise(vectors)

    def _run(self, ids: NDArray[np.int64], mask: NDArray[np.bool_] | None) -> list[NDArray[Any]]:
        feeds = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids) if mask is None else mask,
            "token_type_ids": np.zeros_like(ids),
            "position_ids": np.broadcast_to(np.arange(ids.shape[1]), ids.shape),
        }
        given = {name: feeds[name].astype(dtype) for name, dtype in self._inputs.items()}
        try:
            return list(self._session.run(self._outputs, given))
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            size = f"{ids.shape[0]} texts of {ids.shape[1]} tokens"
            raise InputError(
                f"the graph failed on {size}: {first_line(error)}",
                "lower max_length to the model's limit, or export the model again",
            ) from error


def pool(
    states: NDArray[np.float32], mask: NDArray[np.bool_], pooling: str
) -> NDArray[np.float32]:
    """Token states ``[b, n, d]`` to one vector a text ``[b, d]``, not normalised.

    Args:
        mask: ``[b, n]``, True where there is a token; padding is on the right.
        pooling: ``cls``, ``mean`` or ``last``.
    """
    lengths = mask.sum(axis=1)
    if pooling == "mean":
        pooled = (mask[:, None, :].astype(np.float32) @ states)[:, 0] / lengths[:, None]
    else:
        pooled = states[np.arange(len(states)), 0 if pooling == "cls" else lengths - 1]
    return np.asarray(pooled, dtype=np.float32)
