"""Which examples a step sees: decided by the seed and the step's number alone.

So a run that goes on from a checkpoint sees what it would have seen, and every process knows the
whole batch of which it reads its share.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from steelyard.errors import InputError
from steelyard.training.data.triples import Passage, TrainingExample


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's texts.

    Attributes:
        queries: b.
        passages: b x n: each query's positive, then its negatives.
    """

    queries: list[str]
    passages: list[str]

    def share(self, rank: int, processes: int) -> Batch:
        """What one of several processes reads: as many queries as every other."""
        each = len(self.queries) // processes
        passages = len(self.passages) // len(self.queries)
        first, last = rank * each, (rank + 1) * each
        return Batch(self.queries[first:last], self.passages[first * passages : last * passages])


class Batches:
    """Examples in batches, epoch after epoch.

    Every epoch is shuffled anew. A batch holds no answer to any of its queries but their own
    positives: each would teach that an answer is none. So two examples of one query, or with the
    same positive, do not meet; nor is a negative taken that answers a query of the batch.

    Args:
        examples: at least as many, with different positives, as a batch has queries.
        queries: of a batch.
        negatives: of each query; an example with fewer gets others' positives as random ones.
        seed: of the order and of the choice of negatives.

    Raises:
        InputError: too few examples.
    """

    def __init__(
        self, examples: Sequence[TrainingExample], queries: int, negatives: int, seed: int = 0
    ) -> None:
        self._examples, self._seed = examples, seed
        self._queries, self._negatives = queries, negatives
        self._passages = list({_key(e.positive): e.positive for e in examples}.values())
        if len(self._passages) < queries:
            raise InputError(
                f"{len(examples)} examples with {len(self._passages)} different positives, a "
                f"batch has {queries} queries",
                "make more examples, or the batch smaller",
            )
        self._answers: dict[str, set[str]] = {}
        for example in examples:
            self._answers.setdefault(example.query, set()).add(_key(example.positive))
        self._epoch, self._order = -1, list[list[int]]()
        self._first_step = 0

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step; steps are best asked for in order."""
        if step < self._first_step or self._epoch < 0:
            self._epoch, self._first_step, self._order = 0, 0, self._epoch_order(0)
        while step >= self._first_step + len(self._order):
            self._first_step += len(self._order)
            self._epoch += 1
            self._order = self._epoch_order(self._epoch)
        chosen = [self._examples[i] for i in self._order[step - self._first_step]]
        return self._filled(chosen, np.random.default_rng([self._seed, 1, step]))

    def _epoch_order(self, epoch: int) -> list[list[int]]:
        """Batches of an epoch: whole ones; an example that would meet its like waits."""
        shuffled = np.random.default_rng([self._seed, 0, epoch]).permutation(len(self._examples))
        ahead, waiting = deque(shuffled.tolist()), deque[int]()
        made: list[list[int]] = []
        while len(ahead) + len(waiting) >= self._queries:
            batch: list[int] = []
            positives: set[str] = set()
            answers: set[str] = set()
            again: list[int] = []
            for index in chain(_taken(waiting), _taken(ahead)):
                key = _key(self._examples[index].positive)
                own = self._answers[self._examples[index].query]
                if key in answers or not own.isdisjoint(positives):
                    again.append(index)
                    continue
                positives.add(key)
                answers |= own
                batch.append(index)
                if len(batch) == self._queries:
                    break
            waiting.extendleft(reversed(again))
            if len(batch) < self._queries:
                break
            made.append(batch)
        if not made:
            raise InputError(
                f"no batch of {self._queries} queries can be made of {len(self._examples)} "
                f"examples without one's answer being another's",
                "make the batch smaller, or give more examples",
            )
        return made

    def _filled(self, chosen: list[TrainingExample], rng: np.random.Generator) -> Batch:
        answers = set().union(*(self._answers[example.query] for example in chosen))
        passages: list[str] = []
        for example in chosen:
            passages.append(example.positive.content)
            passages += self._hard(example, answers, rng)
        return Batch([example.query for example in chosen], passages)

    def _hard(
        self, example: TrainingExample, answers: set[str], rng: np.random.Generator
    ) -> list[str]:
        known = [n for n in example.negatives if _key(n) not in answers]
        drawn = rng.permutation(len(known))[: self._negatives]
        found = [known[i].content for i in drawn]
        if len(found) < self._negatives:
            found += self._random(self._negatives - len(found), example, answers, rng)
        return found

    def _random(
        self,
        count: int,
        example: TrainingExample,
        answers: set[str],
        rng: np.random.Generator,
    ) -> list[str]:
        """Other examples' positives, none of which answers a query of this batch."""
        hard = {_key(negative) for negative in example.negatives}
        found: list[str] = []
        for place in rng.permutation(len(self._passages)):
            passage = self._passages[place]
            if _key(passage) not in answers and _key(passage) not in hard:
                found.append(passage.content)
            if len(found) == count:
                return found
        raise InputError(
            f"the example with query {example.query[:60]!r} has {len(example.negatives)} "
            f"negatives, {self._negatives} are wanted, and no other document is left",
            "mine more negatives, ask for fewer, or make the batch smaller",
        )


def repeated(
    examples: Sequence[TrainingExample], times: Mapping[str, int]
) -> list[TrainingExample]:
    """Examples of some kinds several times an epoch.

    Args:
        examples: all of them.
        times: kind -> how often; 0 leaves a kind out, others come once.

    Raises:
        InputError: a kind that no example has.
    """
    kinds = {example.kind for example in examples}
    for kind in times:
        if kind not in kinds:
            raise InputError(
                f"no example is of the kind {kind!r}", f"there are {', '.join(sorted(kinds))}"
            )
    return [example for example in examples for _ in range(times.get(example.kind, 1))]


def examples_sha256(examples: Iterable[TrainingExample]) -> str:
    """What a run learns from, as one hash: texts and their order."""
    digest = hashlib.sha256()
    for example in examples:
        texts = [example.query, example.positive.content]
        texts += [negative.content for negative in example.negatives]
        digest.update(json.dumps(texts, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _key(passage: Passage) -> str:
    """What makes two passages the same document; a part of one is the same, too."""
    return f"id {passage.id}" if passage.id else f"text {passage.content}"


def _taken(queue: deque[int]) -> Iterator[int]:
    """Pops from the left for as long as someone asks."""
    while queue:
        yield queue.popleft()
