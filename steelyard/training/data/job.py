"""A corpus to a file of training examples: pairs, judged ones, their negatives, and a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from steelyard.errors import InputError
from steelyard.indexer.reading.corpus import Corpus
from steelyard.indexer.reading.documents import documents_of, good_documents
from steelyard.progress import Progress
from steelyard.training.data.candidates import Bm25Candidates, CandidateSearch, DenseCandidates
from steelyard.training.data.hard_negatives import MiningCounts, MiningSettings, mine_negatives
from steelyard.training.data.judged import read_beir, read_query_texts, relevant_ids
from steelyard.training.data.near_duplicates import SeenTexts
from steelyard.training.data.pairs import MAX_SHOWN, PairCounts, PairSettings, make_pairs
from steelyard.training.data.triples import BadLine, TrainingExample, load_examples, writing
from steelyard.types import Document

NONE, BM25 = "none", "bm25"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class TrainingDataJob:
    """What to make.

    Attributes:
        pairs: of the corpus itself.
        judged: split of a BEIR folder whose judged pairs come first; None: no such pairs.
        held_out: split of a BEIR folder whose queries, and near duplicates of them, are left out
            of everything: what is reported on is not trained on.
        negatives: ``none``, ``bm25``, a query pack, whose tower ranks; or what ``open_teacher``
            takes.
        mining: how negatives are chosen.
        by_id: write negatives as ids of the corpus, so that the file stays small.
        precision: of a model that mines.
    """

    pairs: PairSettings = field(default_factory=PairSettings)
    judged: str | None = None
    held_out: str | None = None
    negatives: str = BM25
    mining: MiningSettings = field(default_factory=MiningSettings)
    by_id: bool = False
    precision: str = "auto"


@dataclass(frozen=True, slots=True)
class TrainingDataReport:
    """What was made.

    Attributes:
        corpus: its name, and the SHA-256 of its survey.
        examples: written, by kind.
        counts: of the corpus and the pairs.
        held_out: examples left out because their query is held out.
        judged_bad: lines of the judgements that give no example, the first 20 of them.
        judged_bad_lines: how many.
        mining: None without negatives.
        settings: all of them, so that the file can be made again.
        out: the file.
        bytes: its size.
    """

    corpus: str
    corpus_sha256: str
    examples: dict[str, int]
    counts: PairCounts
    held_out: int
    judged_bad: list[BadLine]
    judged_bad_lines: int
    mining: MiningCounts | None
    settings: TrainingDataJob
    out: Path
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """All of it, for ``--json``."""
        return {**asdict(self), "out": str(self.out)}


def make_training_data(
    corpus: Corpus, job: TrainingDataJob, out: Path, progress: Progress
) -> TrainingDataReport:
    """Write a file of training examples; it is there whole or not at all.

    Without negatives the corpus is a stream; with them its documents are held in memory.

    Raises:
        InputError: the corpus, the model or a setting cannot be used, or there is no pair.
    """
    if not job.pairs.kinds and job.judged is None:
        raise InputError("no kind of pairs and no judged split", "name at least one of them")
    with progress.stage("survey"):
        survey = corpus.survey()
    judged, bad = _judged(corpus, job.judged)
    held_out = _HeldOut(corpus, job.held_out, job.pairs.near)
    counts, kinds = PairCounts(), Counter[str]()
    mining = None if job.negatives == NONE else MiningCounts()
    with writing(out, negatives_by_id=job.by_id) as writer:
        search: CandidateSearch | None = None
        documents: list[Document] = []
        if mining is not None:
            documents = list(good_documents(corpus))
            if not documents:
                raise InputError(f"{corpus.path} holds no document", "see docs/corpora.md")
            search = open_search(job.negatives, documents, progress, precision=job.precision)
        name = "make pairs" if mining is None else "make pairs and mine negatives"
        with progress.stage(name, survey.records) as advance:
            made = make_pairs(_told(documents_of(corpus), advance), job.pairs, counts)
            examples: Iterable[TrainingExample] = held_out.without(chain(judged, made))
            if search is not None and mining is not None:
                examples = mine_negatives(
                    examples,
                    documents,
                    search,
                    job.mining,
                    mining,
                    relevant=relevant_ids(judged),
                )
            for example in examples:
                writer.write(example)
                kinds[example.kind] += 1
        if not writer.written:
            raise InputError(
                f"{counts.documents} documents of {corpus.path} give no pair of the kinds "
                f"{', '.join(job.pairs.kinds)}; {counts.rejected} records were rejected",
                "see docs/training-data.md for what each kind needs",
            )
    return TrainingDataReport(
        corpus=corpus.name,
        corpus_sha256=survey.sha256,
        examples=dict(kinds),
        counts=counts,
        held_out=held_out.dropped,
        judged_bad=bad[:MAX_SHOWN],
        judged_bad_lines=len(bad),
        mining=mining,
        settings=job,
        out=out,
        bytes=out.stat().st_size,
    )


def open_search(
    name: str, documents: list[Document], progress: Progress, *, precision: str = "auto"
) -> CandidateSearch:
    """What ranks candidates, by what was given; see ``TrainingDataJob.negatives``.

    Raises:
        InputError: no such model.
        PackMismatchError: the model found is not the one the pack was made for.
    """
    texts = [document.content for document in documents]
    if name == BM25:
        return Bm25Candidates(texts, progress=progress)
    # Models bring torch.
    if (Path(name) / "pack.json").is_file():
        from steelyard.encoders.documents.from_pack import open_dense_encoder
        from steelyard.encoders.query.encoder import QueryEncoder

        metadata = QueryEncoder.load(Path(name)).metadata
        tower = open_dense_encoder(metadata, precision=precision, say=progress.say)
        return DenseCandidates(tower, texts, progress=progress)
    from steelyard.encoders.documents.open_teacher import open_teacher

    teacher = open_teacher(name, precision=precision)
    return DenseCandidates(teacher, texts, progress=progress)


def _judged(corpus: Corpus, split: str | None) -> tuple[list[TrainingExample], list[BadLine]]:
    if split is None:
        return [], []
    folder = _beir(corpus, split)
    return load_examples(read_beir(folder, split), f"{folder}, split {split},")


def _beir(corpus: Corpus, split: str) -> Path:
    if not corpus.path.is_dir():
        raise InputError(
            f"{corpus.path} is no BEIR folder, so it has no judged split {split!r}",
            "give a folder with queries.jsonl and qrels/, or name no split",
        )
    return corpus.path


class _HeldOut:
    """Leaves examples out whose query is one of a split, or nearly one, and counts them."""

    def __init__(self, corpus: Corpus, split: str | None, near: float) -> None:
        self.dropped = 0
        self._queries = SeenTexts(1, near)
        if split is not None:
            for text in read_query_texts(_beir(corpus, split), split):
                self._queries.add(text)

    def without(self, examples: Iterable[TrainingExample]) -> Iterator[TrainingExample]:
        for example in examples:
            if self._queries.find(example.query):
                self.dropped += 1
            else:
                yield example


def _told(items: Iterable[_T], advance: Callable[[int], None]) -> Iterator[_T]:
    for item in items:
        yield item
        advance(1)
