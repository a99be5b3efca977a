"""A batch's texts as the token ids that the towers read."""

from __future__ import annotations

from dataclasses import dataclass

from steelyard.encoders.causal.tokens import CausalTokenizer
from steelyard.training.batches import Batch
from steelyard.training.settings import BatchSettings

Rows = list[list[int]]


@dataclass(frozen=True, slots=True)
class TokenisedBatch:
    """Token ids of one batch of b queries and b x n passages.

    Attributes:
        light: of queries, without specials: what is looked up.
        counted: of ``" " + query``, without specials: what the sparse arm counts.
        full: ``bos prompt query eos``.
        documents: ``bos passage eos``.
    """

    light: Rows
    counted: Rows
    full: Rows
    documents: Rows

    @property
    def tokens(self) -> int:
        """Of documents and full queries: what the backbone reads, light queries aside."""
        return sum(map(len, self.documents)) + sum(map(len, self.full))


def tokenise(
    batch: Batch, tokens: CausalTokenizer, prompt: str, settings: BatchSettings
) -> TokenisedBatch:
    """Cut and tokenise; the same rules as at serving (LightRetriever, section 1).

    Args:
        batch: of one process.
        tokens: of the model.
        prompt: before full queries.
        settings: lengths.
    """
    limit = settings.query_tokens + 2  # the query alone is cut, as at serving
    spaced = [" " + query for query in batch.queries]
    before = len(tokens.prompt_ids(prompt)) - 1  # the full query's bos is counted already
    return TokenisedBatch(
        light=[row[1:-1] for row in tokens.ids(batch.queries, limit)],
        counted=[row[1:-1] for row in tokens.ids(spaced, limit)],
        full=tokens.ids(batch.queries, limit + before, prompt),
        documents=tokens.ids(batch.passages, settings.document_tokens),
    )
