"""Token ids and token strings: engines that key terms by string need to know both."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from steelyard.errors import EngineError


class Vocabulary(Protocol):
    """What an engine needs of a pack's tokenizer; ``tokenizers.Tokenizer`` is one."""

    def id_to_token(self, id: int, /) -> str | None:
        """The token's string; None for an id that is not used."""

    def token_to_id(self, token: str, /) -> int | None:
        """The inverse."""


class TermKeys:
    """Terms as strings, looked up once each.

    Args:
        vocabulary: of the pack; None where the engine was opened without one.
    """

    def __init__(self, vocabulary: Vocabulary | None) -> None:
        self._vocabulary = vocabulary
        self._keys: dict[int, str] = {}
        self._ids: dict[str, int] = {}

    @property
    def known(self) -> bool:
        """Whether there is a vocabulary at all."""
        return self._vocabulary is not None

    def keys(self, ids: Iterable[int]) -> list[str]:
        """The strings of token ids.

        Raises:
            EngineError: no vocabulary, or a token without a string of its own.
        """
        return [self._keys[i] if i in self._keys else self._learn(i) for i in ids]

    def ids(self, keys: Iterable[str]) -> list[int]:
        """The token ids of strings.

        Raises:
            EngineError: no vocabulary, or a string that it lacks.
        """
        return [self._ids[key] if key in self._ids else self._find(key) for key in keys]

    def text(self, identifier: int) -> str | None:
        """A token's string, for comparing vocabularies; None where there is none."""
        return self._required().id_to_token(identifier)

    def _learn(self, identifier: int) -> str:
        vocabulary = self._required()
        key = vocabulary.id_to_token(identifier)
        if key is None or vocabulary.token_to_id(key) != identifier:
            raise EngineError(
                f"token {identifier} has no string of its own ({key!r}) in the pack's tokenizer",
                "this engine keys terms by token strings: rebuild the pack, or use Milvus",
            )
        self._keys[identifier] = key
        return key

    def _find(self, key: str) -> int:
        identifier = self._required().token_to_id(key)
        if identifier is None:
            raise EngineError(
                f"the index has a term {key!r:.60}, which the pack's tokenizer lacks",
                "open the engine with the pack that the index was made with",
            )
        self._ids[key] = identifier
        return identifier

    def _required(self) -> Vocabulary:
        if self._vocabulary is None:
            raise EngineError(
                "this engine keys terms by token strings and was opened without a vocabulary",
                "open_engine(url, vocabulary=QueryEncoder.load(pack).tokenizer)",
            )
        return self._vocabulary
