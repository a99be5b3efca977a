"""Why documents were rejected, as a few kinds: a label must not take a million values."""

from __future__ import annotations

import re

_DETAIL = re.compile(r"[:,(].*| at byte .*| first on .*", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w-])\d[\d,.]*")
_LONGEST = 60


def reason_kind(reason: str) -> str:
    """The kind of a reason: "duplicate id, first on line 17" is "duplicate id"."""
    kind = _DETAIL.sub("", reason, count=1)
    return _NUMBER.sub("N", kind).strip()[:_LONGEST] or "unknown"
