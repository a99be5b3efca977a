"""Why a document is where it is: tokens, arms, fusion."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.plugin.engine import DENSE, Candidates, Generation, StoredDocument
from steelyard.plugin.fusion import Fusion, contributions
from steelyard.plugin.search.answer import Explanation, TermMatch
from steelyard.types import EncodedQueries


class Explainer:
    """Explains the hits of one query.

    Args:
        queries: the encoder.
        text, instruction, encoded: the query.
        generation: what was searched.
        arms: candidates of each arm.
        fusion: how they were joined.
        refined: feedback has changed the dense query, so that its tokens say nothing.
    """

    def __init__(
        self,
        queries: QueryEncoder,
        text: str,
        instruction: str | None,
        encoded: EncodedQueries,
        generation: Generation,
        arms: Mapping[str, Candidates],
        fusion: Fusion,
        *,
        refined: bool,
    ) -> None:
        self._queries, self._scale, self._fusion = queries, generation.scale, fusion
        ids, weights = encoded.sparse.row(0)
        self._terms = dict(zip(ids.tolist(), weights.tolist(), strict=True))
        self._parts = {
            arm: dict(
                zip(
                    found.ids,
                    contributions(found.scores, fusion, fusion.weight(arm)).tolist(),
                    strict=True,
                )
            )
            for arm, found in arms.items()
        }
        self._tokens, self._counts, self._vectors = queries.token_vectors(
            text, instruction=instruction
        )
        self._refined = refined or DENSE not in arms

    def explain(
        self, identifier: str, stored: StoredDocument, recency: float | None
    ) -> Explanation:
        """One hit.

        Args:
            identifier: its id.
            stored: with vectors and terms.
            recency: its factor.
        """
        arms = {
            arm: found[identifier] for arm, found in self._parts.items() if identifier in found
        }
        return Explanation(
            self._fusion.method, arms, recency, self._sparse(stored), self._dense(stored)
        )

    def _sparse(self, stored: StoredDocument) -> list[TermMatch]:
        if stored.impacts is None:
            return []
        matches = []
        for token, impact in zip(*(part.tolist() for part in stored.impacts), strict=True):
            weight = self._terms.get(token)
            if weight is not None:
                document = impact / self._scale
                matches.append(TermMatch(self._text(token), weight, document, weight * document))
        return sorted(matches, key=lambda match: (-match.score, match.token))

    def _dense(self, stored: StoredDocument) -> list[TermMatch]:
        if self._refined or stored.dense is None:
            return []
        parts = np.asarray(self._vectors @ stored.dense, dtype=np.float64).tolist()
        matches = [
            TermMatch(self._text(token), float(count), None, part)
            for token, count, part in zip(self._tokens, self._counts, parts, strict=True)
        ]
        return sorted(matches, key=lambda match: (-match.score, match.token))

    def _text(self, token: int) -> str:
        return self._queries.tokenizer.id_to_token(token) or f"#{token}"
