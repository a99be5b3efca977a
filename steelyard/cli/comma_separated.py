"""Numbers of an option that takes several."""

from __future__ import annotations

from steelyard.errors import InputError


def integers(text: str, option: str, *, example: str, least: int) -> list[int]:
    """``1,4`` as numbers, in the order written.

    Args:
        text: what the user wrote.
        option: its name, for the message.
        example: what may be written.
        least: none may be less.

    Raises:
        InputError: anything else.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"cannot read {option} {text!r}", f"write {example}") from error
    if min(numbers) < least:
        raise InputError(f"{option} {text!r}", f"give {least} or more")
    return numbers
