"""Hard negatives of real abstracts: by BM25, and by a tiny table tower."""

from __future__ import annotations

from collections.abc import Sequence

import bm25s
import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from steelyard.encoders.distillation.stop_words import ENGLISH
from steelyard.encoders.documents.sentence_transformers import SentenceTransformersEncoder
from steelyard.errors import InputError
from steelyard.progress import SilentProgress
from steelyard.training.data.candidates import (
    Bm25Candidates,
    CandidateSearch,
    DenseCandidates,
    Ranked,
    best,
)
from steelyard.training.data.hard_negatives import MiningCounts, MiningSettings, mine_negatives
from steelyard.training.data.job import open_search
from steelyard.training.data.kinds import KINDS, pairs_of
from steelyard.training.data.triples import Passage, TrainingExample
from steelyard.types import DenseVectors, Document, DocumentVectors
from tests.conftest import MODEL, scifact_lines
from tests.table_tower import TableTower


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return [Document(line["_id"], line["text"], line["title"]) for line in scifact_lines(150)]


@pytest.fixture(scope="module")
def texts(documents: list[Document]) -> list[str]:
    return [document.content for document in documents]


@pytest.fixture(scope="module")
def examples(documents: list[Document]) -> list[TrainingExample]:
    return [pair for document in documents[:60] for pair in pairs_of(document, KINDS, 0)]


class Listed:
    """A ranking that was written down."""

    def __init__(self, scores: Sequence[float], positive: float) -> None:
        self.scores, self.positive = np.array(scores), positive

    def search(
        self, queries: Sequence[str], positives: Sequence[str], depth: int
    ) -> tuple[list[Ranked], NDArray[np.float64]]:
        rows = np.arange(len(self.scores), dtype=np.int64)
        found = best(rows, self.scores, depth)
        return [found] * len(queries), np.full(len(queries), self.positive)


def mine(
    examples: Sequence[TrainingExample],
    documents: Sequence[Document],
    search: CandidateSearch,
    settings: MiningSettings,
    relevant: dict[str, set[str]] | None = None,
) -> tuple[list[TrainingExample], MiningCounts]:
    counts = MiningCounts()
    found = mine_negatives(examples, documents, search, settings, counts, relevant=relevant)
    return list(found), counts


def words(text: str) -> list[str]:
    pieces = BertPreTokenizer().pre_tokenize_str(
        BertNormalizer(lowercase=True).normalize_str(text)
    )
    return [piece for piece, _ in pieces if any(c.isalnum() for c in piece)]


def test_bm25_ranks_as_an_independent_implementation(
    texts: list[str], examples: list[TrainingExample]
) -> None:
    queries = [example.query for example in examples[:40]]
    positives = [texts[i % 150] for i in range(40)]
    ranked, scores = Bm25Candidates(texts).search(queries, positives, 20)
    reference = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    reference.index([words(text) for text in texts], show_progress=False)
    for i, query in enumerate(queries):
        asked = [w for w in words(query) if w not in ENGLISH]
        theirs = np.asarray(reference.get_scores(asked), dtype=np.float64) * 2.2  # k1 + 1
        hits = -np.sort(-theirs[theirs > 0])
        np.testing.assert_allclose(ranked[i].scores, hits[:20], rtol=1e-4)
        np.testing.assert_allclose(theirs[ranked[i].rows], ranked[i].scores, rtol=1e-4)
        np.testing.assert_allclose(scores[i], theirs[i % 150], rtol=1e-4, atol=1e-6)


def test_dense_ranks_by_inner_product(texts: list[str], examples: list[TrainingExample]) -> None:
    queries = [example.query for example in examples[:70]]
    positives = [example.positive.content for example in examples[:70]]
    ranked, scores = DenseCandidates(TableTower(), texts).search(queries, positives, 10)
    tower = TableTower()
    vectors = [tower.encode_document(part).dense for part in (queries, texts, positives)]
    assert all(part is not None for part in vectors)
    products = np.asarray(vectors[0]) @ np.asarray(vectors[1]).T
    for row, found in zip(products, ranked, strict=True):
        np.testing.assert_allclose(found.scores, -np.sort(-row)[:10], atol=1e-6)
        np.testing.assert_allclose(row[found.rows], found.scores, atol=1e-6)
    own = (np.asarray(vectors[0]) * np.asarray(vectors[2])).sum(axis=1)
    np.testing.assert_allclose(scores, own, atol=1e-6)


class WithQueries(TableTower):
    """A tower whose queries are read backwards."""

    def encode_query(self, texts: Sequence[str]) -> DenseVectors:
        dense = self.encode_document(texts).dense
        assert dense is not None
        return -dense


def test_a_towers_own_query_side_is_used(texts: list[str]) -> None:
    plain, _ = DenseCandidates(TableTower(), texts).search(texts[:5], texts[:5], 150)
    other, scores = DenseCandidates(WithQueries(), texts).search(texts[:5], texts[:5], 150)
    assert scores == pytest.approx([-1] * 5, abs=1e-5)
    for a, b in zip(plain, other, strict=True):
        np.testing.assert_allclose(b.scores, -a.scores[::-1], atol=1e-6)


@pytest.mark.parametrize("dense", [False, True])
def test_mined_negatives_are_hard_and_never_positives(
    documents: list[Document], texts: list[str], examples: list[TrainingExample], dense: bool
) -> None:
    search = DenseCandidates(TableTower(), texts) if dense else Bm25Candidates(texts)
    settings = MiningSettings(fill=False, per_query=4, depth=60)
    made, counts = mine(examples, documents, search, settings)
    assert [(m.query, m.positive) for m in made] == [(e.query, e.positive) for e in examples]
    rows = {document.id: row for row, document in enumerate(documents)}
    ranked, scores = search.search(
        [e.query for e in examples], [e.positive.content for e in examples], 60
    )
    for one, found, score in zip(made, ranked, scores, strict=True):
        of = dict(zip(found.rows.tolist(), found.scores.tolist(), strict=True))
        taken = [of[rows[negative.id]] for negative in one.negatives]
        assert all(value < score - 0.05 * abs(score) for value in taken)
        assert taken == sorted(taken, reverse=True)
        assert one.positive.id not in {negative.id for negative in one.negatives}
        # None that was left out scores more than one that was taken, but false negatives.
        left = [v for r, v in of.items() if documents[r].id not in {n.id for n in one.negatives}]
        limit = settings.limit(float(score))
        below = [v for v in left if v < limit and v != of.get(rows[one.positive.id])]
        if len(taken) == 4 and below:
            assert max(below) <= taken[-1]
    assert counts.queries == len(examples)
    assert counts.candidates == sum(len(found.rows) for found in ranked)
    assert counts.mined == sum(len(one.negatives) for one in made)
    assert counts.false_negatives > 0
    assert counts.random == 0


def seven() -> tuple[list[Document], TrainingExample]:
    documents = [Document(str(i), f"text {i}") for i in range(7)]
    return documents, TrainingExample("q", Passage.of(documents[1]))


@pytest.mark.parametrize(
    ("settings", "taken"),
    [
        ({"ratio": None}, ["3", "4", "5", "6"]),
        ({"ratio": 0.95}, ["4", "5", "6"]),
        ({"ratio": 0.5}, ["5", "6"]),
        ({"ratio": None, "margin": 0.3}, ["4", "5", "6"]),
        ({"ratio": 0.95, "margin": 0.7}, ["6"]),
    ],
)
def test_the_margin_removes_what_scores_near_the_positive(
    settings: dict[str, float | None], taken: list[str]
) -> None:
    documents, example = seven()
    # Document 2 scores as the positive does: at any setting it is a false negative.
    search = Listed([1.2, 1.0, 1.0, 0.97, 0.6, 0.4, 0.1], positive=1.0)
    chosen = MiningSettings(fill=False, **settings)  # type: ignore[arg-type]
    made, counts = mine([example], documents, search, chosen)
    assert [one.id for one in made[0].negatives] == taken
    assert counts == MiningCounts(
        queries=1,
        candidates=7,
        positives=1,
        false_negatives=6 - len(taken),
        above_positive=1,
        mined=len(taken),
        short=1,
    )


def test_a_positive_below_zero_has_its_margin_below_itself() -> None:
    assert MiningSettings(ratio=0.9).limit(-0.5) == pytest.approx(-0.55)
    assert MiningSettings(ratio=0.9).limit(0.5) == pytest.approx(0.45)


def test_every_known_positive_is_kept_out() -> None:
    documents = [
        Document("0", "same words"),
        Document("a#0", "first passage", parent_id="a"),
        Document("a#1", "second passage", parent_id="a"),
        Document("3", "judged too"),
        Document("4", "a negative"),
        Document("5", "a negative"),
        Document("6", "another"),
    ]
    search = Listed([0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05], positive=1.0)
    settings = MiningSettings(per_query=5)
    example = TrainingExample("q", Passage.of(documents[1]))
    made, counts = mine([example], documents, search, settings, {"q": {"3", "elsewhere"}})
    assert [one.id for one in made[0].negatives] == ["0", "4", "6"]
    assert (counts.positives, counts.short) == (3, 1)
    same = TrainingExample("r", Passage("same words"), (Passage("given"),))
    made, counts = mine([same], documents, search, settings)
    assert [one.text for one in made[0].negatives][:2] == ["given", "first passage"]
    assert "same words" not in [one.text for one in made[0].negatives]


def test_random_documents_fill_up_and_the_seed_decides(
    documents: list[Document], examples: list[TrainingExample]
) -> None:
    search = Listed([2.0] * 10, positive=1.0)  # the first ten are false negatives
    chosen = [
        mine(examples[50:60], documents, search, MiningSettings(seed=seed)) for seed in (0, 0, 1)
    ]
    assert chosen[0][0] == chosen[1][0]
    assert chosen[0][0] != chosen[2][0]
    made, counts = chosen[0]
    assert (counts.random, counts.mined, counts.short) == (70, 0, 0)
    refused = {document.id for document in documents[:10]}
    for one in made:
        ids = {negative.id for negative in one.negatives}
        assert len(ids) == 7
        assert not ids & (refused | {one.positive.id})


def test_what_a_query_is_mined_does_not_depend_on_others(
    documents: list[Document], texts: list[str], examples: list[TrainingExample]
) -> None:
    search = Bm25Candidates(texts)
    alone, _ = mine(examples[7:8], documents, search, MiningSettings())
    together, _ = mine(examples, documents, search, MiningSettings())
    assert together[7] == alone[0]


def test_equal_scores_are_ranked_by_row() -> None:
    found = best(np.array([5, 3, 9, 1]), np.array([1.0, 2.0, 1.0, 1.0]), 3)
    assert found.rows.tolist() == [3, 1, 5]
    assert best(np.array([], dtype=np.int64), np.array([]), 3).rows.tolist() == []


def test_an_unknown_query_finds_nothing(texts: list[str]) -> None:
    ranked, scores = Bm25Candidates(texts).search(["zzzzqq", "what is the", ""], texts[:3], 5)
    assert [len(found.rows) for found in ranked] == [0, 0, 0]
    assert scores.tolist() == [0, 0, 0]


class Sparse(TableTower):
    """A tower without a dense arm."""

    def encode_document(self, texts: Sequence[str]) -> DocumentVectors:
        return DocumentVectors(sparse=super().encode_document(texts).sparse)


def test_a_model_that_cannot_rank_is_refused() -> None:
    with pytest.raises(InputError, match="vector of a document is not finite: 'poison"):
        DenseCandidates(TableTower(), ["fine", "poison here"])
    with pytest.raises(InputError, match="no dense arm"):
        DenseCandidates(Sparse(), ["fine"])
    with pytest.raises(InputError, match="hold no token"):
        Bm25Candidates(["", "!!"])


@pytest.mark.parametrize(
    "settings",
    [
        {"per_query": 0},
        {"depth": 3},
        {"ratio": 0.0},
        {"ratio": 1.1},
        {"margin": -1.0},
        {"seed": -1},
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError):
        MiningSettings(**settings)  # type: ignore[arg-type]


def test_a_real_model_mines_by_name(
    documents: list[Document], model: SentenceTransformersEncoder
) -> None:
    few = documents[:12]
    search = open_search(MODEL, few, SilentProgress())
    queries = [document.title for document in few]
    bodies = [document.text for document in few]
    ranked, scores = search.search(queries, bodies, 12)
    assert [int(found.rows[0]) for found in ranked] == list(range(12))
    read = np.asarray(model.encode_document(bodies).dense)
    expected = (model.encode_query(queries) * read).sum(axis=1)
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    examples = [pair for document in few for pair in pairs_of(document, ("title",), 0)]
    settings = MiningSettings(per_query=3, depth=12, fill=False)
    made, counts = mine(examples, few, search, settings)
    assert all(len(one.negatives) == 3 for one in made)
    assert counts.positives == 12


def test_a_model_that_is_not_there_is_told(documents: list[Document]) -> None:
    with pytest.raises(InputError, match="nowhere/to/be/found"):
        open_search("nowhere/to/be/found", documents[:2], SilentProgress())
