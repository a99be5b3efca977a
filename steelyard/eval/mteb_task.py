"""A judged collection on this disk as a retrieval task of the ``mteb`` package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from steelyard.errors import needs_extra
from steelyard.eval.collection import read_judged
from steelyard.indexer.reading.documents import good_documents
from steelyard.indexer.reading.readers import open_corpus

if TYPE_CHECKING:
    from mteb.abstasks import AbsTaskRetrieval


def local_task(
    folder: str | Path, split: str = "test", *, language: str = "eng-Latn"
) -> AbsTaskRetrieval:
    """A BEIR folder as a task for ``mteb.evaluate``; nothing is fetched from anywhere.

    It has the documents that ``steelyard index`` takes (records that it rejects are left out) and
    the queries that ``steelyard eval`` measures.

    Args:
        folder: with corpus, queries and qrels.
        split: which qrels.
        language: mteb's code of the language and its script.

    Raises:
        InputError: no such folder or split.
        MissingExtraError: mteb is not installed.
    """
    with needs_extra("mteb"):
        from datasets import Dataset
        from mteb.abstasks import AbsTaskRetrieval
        from mteb.abstasks.task_metadata import TaskMetadata

    path = Path(folder)
    judged, corpus = read_judged(path, split), open_corpus(path)
    survey = corpus.survey()

    class LocalRetrieval(AbsTaskRetrieval):  # type: ignore[misc]
        """The collection in ``folder``."""

        data_loaded: bool = False
        metadata = TaskMetadata(
            name=path.resolve().name,
            description=f"{len(judged.queries)} queries over {survey.records} documents",
            dataset={"path": str(path.resolve()), "revision": survey.sha256},
            type="Retrieval",
            category="t2t",
            eval_splits=[split],
            eval_langs=[language],
            main_score="ndcg_at_10",
        )

        def load_data(self, *arguments: Any, **settings: Any) -> None:
            """Read the folder, once."""
            del arguments, settings
            if self.data_loaded:
                return
            documents = [
                {"id": d.id, "title": d.title, "text": d.text} for d in good_documents(corpus)
            ]
            queries = [{"id": query.id, "text": query.text} for query in judged.queries]
            known = {query.id for query in judged.queries}
            self.dataset = {
                "default": {
                    split: {
                        "corpus": Dataset.from_list(documents),
                        "queries": Dataset.from_list(queries),
                        "relevant_docs": {
                            query: dict(relevant)
                            for query, relevant in judged.qrels.items()
                            if query in known
                        },
                        "top_ranked": None,
                    }
                }
            }
            self.data_loaded = True

    return LocalRetrieval()
