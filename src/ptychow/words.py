"""Words for messages."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """ "1 frame", "2,000 frames": the number and what there are so many of."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
