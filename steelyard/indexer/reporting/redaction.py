"""Nothing secret in what is written down: command lines, log records, job files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

HIDDEN = "***"

_WORDS = r"password|passwd|token|secret|api[_-]?key|access[_-]?key|credentials?"
_LOGIN = re.compile(r"(?<=://)[^/\s@]*@")
# Of a name the last word: --batch-tokens and TOKENIZERS_PARALLELISM hold no secret.
_OPTION = re.compile(rf"--(?:.*-)?(?:{_WORDS})", re.IGNORECASE)
_VARIABLE = re.compile(rf"(?:.*_)?(?:{_WORDS})(?:_.*)?", re.IGNORECASE)
_SETTING = re.compile(
    rf"((?<![a-z])(?:{_WORDS})[\"']?\s*[=:]\s*[\"']?)(?:(?:bearer|basic)\s+)?[^\s&,;\"']+",
    re.IGNORECASE,
)
_HEADER = re.compile(r"((?:authorization|proxy-authorization)\s*[=:]\s*)[^\n\"']+", re.IGNORECASE)
_SHORTEST = 6


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """A text without logins in URLs, values of secret settings, and secrets of the environment.

    Args:
        text: any.
        environment: whose values may be secret; None is this process's.
    """
    text = _LOGIN.sub(f"{HIDDEN}@", text)
    text = _HEADER.sub(rf"\1{HIDDEN}", text)
    text = _SETTING.sub(rf"\1{HIDDEN}", text)
    for secret in _secrets(os.environ if environment is None else environment):
        text = text.replace(secret, HIDDEN)
    return text


def redact_arguments(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> list[str]:
    """A command line without secrets; the value behind an option of a secret name goes whole."""
    shown: list[str] = []
    hide = False
    for argument in arguments:
        option, equals, _ = argument.partition("=")
        if hide:
            shown.append(HIDDEN)
            hide = False
        elif _OPTION.fullmatch(option):
            shown.append(option + equals + (HIDDEN if equals else ""))
            hide = not equals
        else:
            shown.append(redact(argument, environment))
    return shown


def _secrets(environment: Mapping[str, str]) -> list[str]:
    found = {
        value
        for name, value in environment.items()
        if _VARIABLE.fullmatch(name)
        and len(value) >= _SHORTEST
        and not value.startswith(("/", "."))
    }
    return sorted(found, key=len, reverse=True)
