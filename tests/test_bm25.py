"""BM25 as an inner product, against an independent implementation on the same tokens."""

from __future__ import annotations

import bm25s
import numpy as np
import pytest
from tokenizers import Tokenizer

from steelyard.encoders.documents.bm25 import Bm25Encoder, count_corpus
from steelyard.encoders.documents.sentence_transformers import SentenceTransformersEncoder
from steelyard.encoders.pack.query_tokenizer import query_tokenizer
from steelyard.encoders.query.tokenizer import PackTokenizer
from steelyard.errors import InputError
from tests.conftest import scifact_lines


@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.9, 0.4)])
def test_scores_equal_bm25s(model: SentenceTransformersEncoder, k1: float, b: float) -> None:
    prepared = query_tokenizer(model.tokenizer_json())
    tokens = PackTokenizer(
        Tokenizer.from_str(prepared.text), prepared.rows, ignored_ids=prepared.special_ids
    )
    texts = [f"{d['title']} {d['text']}" for d in scifact_lines(300)]
    queries = [text[:90] for text in texts[::10]] + ["vitamin vitamin cell", "zebra crossing"]
    statistics = count_corpus(texts, tokens, prepared.rows, chunk=77)
    encoder = Bm25Encoder(tokens, prepared.rows, avgdl=statistics.avgdl, k1=k1, b=b)
    documents = encoder.encode_document(texts).sparse
    assert documents is not None
    counts = np.zeros((len(queries), prepared.rows), dtype=np.float64)
    for row, query in enumerate(queries):
        for token in tokens.encode_one(query)[0]:
            counts[row, token] += 1
    ours = (counts * statistics.idf()) @ documents.to_csr().T.toarray()

    reference = bm25s.BM25(method="lucene", k1=k1, b=b)
    corpus = [[str(t) for t in tokens.encode_one(text)[0]] for text in texts]
    reference.index(corpus, show_progress=False)
    for row, query in enumerate(queries):
        terms = [str(t) for t in tokens.encode_one(query)[0]]
        # bm25s leaves out the constant factor (k1 + 1), as Lucene does since version 8.
        theirs = reference.get_scores(terms) * (k1 + 1)
        np.testing.assert_allclose(ours[row], theirs, rtol=2e-5, atol=1e-4)


def test_a_corpus_without_a_known_token_is_refused(model: SentenceTransformersEncoder) -> None:
    prepared = query_tokenizer(model.tokenizer_json())
    tokens = PackTokenizer(
        Tokenizer.from_str(prepared.text), prepared.rows, ignored_ids=prepared.special_ids
    )
    with pytest.raises(InputError, match="2 documents hold no token"):
        count_corpus(["", "\U0001f642"], tokens, prepared.rows)
    with pytest.raises(InputError, match="b is 0 to 1"):
        Bm25Encoder(tokens, prepared.rows, avgdl=1.0, b=1.5)
