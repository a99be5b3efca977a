"""Which examples a step sees."""

from __future__ import annotations

import numpy as np
import pytest

from steelyard.errors import InputError
from steelyard.training.batches import Batch, Batches, examples_sha256, repeated
from steelyard.training.data.triples import Passage, TrainingExample


def _passage(number: int) -> Passage:
    return Passage(f"text {number}", id=str(number))


def _examples(documents: int, each: int = 3, negatives: int = 4) -> list[TrainingExample]:
    """Several queries a document; negatives are the documents after it."""
    return [
        TrainingExample(
            f"query {number}.{turn}",
            _passage(number),
            tuple(_passage((number + 1 + n) % documents) for n in range(negatives)),
            kind=f"kind{turn}",
        )
        for number in range(documents)
        for turn in range(each)
    ]


def _documents(batch: Batch) -> np.ndarray:
    """Numbers of the passages, ``[b, n]``."""
    numbers = [int(text.removeprefix("text ")) for text in batch.passages]
    return np.array(numbers).reshape(len(batch.queries), -1)


def test_a_batch_teaches_no_answer_to_be_none() -> None:
    batches = Batches(_examples(40), queries=8, negatives=2, seed=5)
    for step in range(60):
        batch = batches[step]
        found = _documents(batch)
        assert found.shape == (8, 3)
        positives, negatives = found[:, 0], found[:, 1:]
        assert len(set(positives.tolist())) == 8
        assert not set(negatives.ravel().tolist()) & set(positives.tolist())
        asked = [int(query.removeprefix("query ").split(".")[0]) for query in batch.queries]
        assert asked == positives.tolist()


def test_hard_negatives_come_first_and_random_ones_fill_up() -> None:
    examples = _examples(40, each=1, negatives=1)
    batches = Batches(examples, queries=4, negatives=3)
    hard = 0
    for step in range(10):
        found = _documents(batches[step])
        positives = set(found[:, 0].tolist())
        for row in found:
            mined = (row[0] + 1) % 40
            assert len(set(row.tolist())) == 4
            if mined not in positives:
                assert row[1] == mined
                hard += 1
    assert hard > 20


def test_an_epoch_is_every_example_once_and_the_next_in_another_order() -> None:
    batches = Batches(_examples(90, each=1), queries=6, negatives=0)
    epochs = [[q for step in range(15) for q in batches[15 * e + step].queries] for e in (0, 1)]
    for queries in epochs:
        assert len(set(queries)) == len(queries) == 90
    assert epochs[0] != epochs[1]


def test_examples_that_would_meet_their_like_wait() -> None:
    """Few documents with many queries: batches stay whole for as long as they can."""
    batches = Batches(_examples(6, each=10), queries=5, negatives=0)
    seen = [query for step in range(8) for query in batches[step].queries]
    assert len(set(seen)) == 40


def test_a_step_is_the_same_from_anywhere() -> None:
    examples = _examples(25)
    straight = Batches(examples, queries=7, negatives=2, seed=1)
    for step in range(30):
        straight[step]
    assert Batches(examples, queries=7, negatives=2, seed=1)[30] == straight[30]
    assert straight[3] == Batches(examples, queries=7, negatives=2, seed=1)[3]
    assert Batches(examples, queries=7, negatives=2, seed=2)[30] != straight[30]


def test_processes_share_a_batch() -> None:
    batch = Batches(_examples(25), queries=6, negatives=2)[0]
    shares = [batch.share(rank, 3) for rank in range(3)]
    assert [q for share in shares for q in share.queries] == batch.queries
    assert [p for share in shares for p in share.passages] == batch.passages


def test_too_little_to_train_on() -> None:
    with pytest.raises(InputError, match="12 examples with 4 different positives, a batch has 5"):
        Batches(_examples(4), queries=5, negatives=0)
    with pytest.raises(InputError, match="3 negatives, 4 are wanted, and no other document"):
        Batches(_examples(5, negatives=3), queries=5, negatives=4)[0]


def test_kinds_are_repeated() -> None:
    examples = _examples(3)
    found = repeated(examples, {"kind1": 3, "kind2": 0})
    kinds = [example.kind for example in found]
    assert [kinds.count(f"kind{turn}") for turn in range(3)] == [3, 9, 0]
    with pytest.raises(InputError, match="no example is of the kind 'title'"):
        repeated(examples, {"title": 2})


def test_the_hash_sees_every_text_and_their_order() -> None:
    examples = _examples(3)
    hashes = {
        examples_sha256(examples),
        examples_sha256(examples[::-1]),
        examples_sha256(examples[1:]),
        examples_sha256([*examples[:-1], TrainingExample("other", examples[-1].positive)]),
    }
    assert len(hashes) == 4
    assert examples_sha256(_examples(3)) in hashes


def test_two_answers_of_one_query_are_never_each_others_negatives() -> None:
    """As with queries that have several judged documents."""
    examples = [
        TrainingExample(f"query {query}", _passage(10 * query + part), kind="judged")
        for query in range(20)
        for part in range(2)
    ]
    batches = Batches(examples, queries=6, negatives=3)
    for step in range(40):
        batch = batches[step]
        asked = [int(query.removeprefix("query ")) for query in batch.queries]
        assert len(set(asked)) == 6
        answered = _documents(batch) // 10
        assert answered[:, 0].tolist() == asked
        assert not set(answered[:, 1:].ravel().tolist()) & set(asked)


def test_no_batch_can_be_made() -> None:
    """Four positives, but all answer one query."""
    examples = [TrainingExample("query", _passage(number)) for number in range(4)]
    with pytest.raises(InputError, match="no batch of 2 queries can be made of 4 examples"):
        Batches(examples, queries=2, negatives=0)[0]
