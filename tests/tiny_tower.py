"""A document tower that costs next to nothing: a random BERT of one layer, and a pack for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel

from steelyard.encoders.documents.sentence_transformers import SentenceTransformersEncoder
from steelyard.encoders.pack.files import write_pack
from steelyard.encoders.pack.query_tokenizer import query_tokenizer
from steelyard.encoders.query.tables import table_tensors
from tests.conftest import dense_arm, sparse_arm, tiny_metadata

DIMS = 16


def write_tiny_tower(folder: Path, words: Sequence[str]) -> Path:
    """Write the model, as sentence-transformers opens it.

    Args:
        folder: of the model.
        words: of the vocabulary; texts are split at white space.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(words),
        unk_token="[UNK]",  # noqa: S106
        pad_token="[PAD]",  # noqa: S106
        model_max_length=64,
    )
    torch.manual_seed(0)
    bert = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=DIMS,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=DIMS,
            max_position_embeddings=64,
        )
    )
    plain = folder / "plain"
    bert.save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    module = Transformer(str(plain), max_seq_length=64)
    model = SentenceTransformer(modules=[module, Pooling(DIMS)], device="cpu")
    model.save(str(folder / "model"))
    return folder / "model"


def write_tiny_tower_pack(folder: Path, model: Path, words: Sequence[str]) -> Path:
    """Write a pack of the model: BM25 for the sparse arm, random rows for the dense one."""
    tokenizer = query_tokenizer(_tokenizer(words).to_str())
    rows = np.random.default_rng(0).normal(size=(tokenizer.rows, DIMS)).astype(np.float32)
    write_pack(
        folder,
        tiny_metadata(
            tokenizer,
            name="tiny-tower",
            document_encoder=SentenceTransformersEncoder(str(model)).spec,
            dense=dense_arm(tokenizer, dims=DIMS),
            sparse=sparse_arm(tokenizer),
        ),
        tokenizer.text,
        table_tensors(rows, "float32", "default"),
        np.ones(tokenizer.rows, dtype=np.float32),
    )
    return folder


def _tokenizer(words: Sequence[str]) -> Tokenizer:
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]"])
    return tokenizer
