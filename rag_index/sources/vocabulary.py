"""The words by which `init` knows what tables and columns are for; they stand in `vocabulary.toml`, with comments."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path


@cache
def _vocabulary() -> dict[str, dict[str, list[str]]]:
    return tomllib.loads(Path(__file__).with_name("vocabulary.toml").read_text(encoding="utf-8"))


def ordered_words(topic: str, name: str) -> tuple[str, ...]:
    """Return the words of a list, the best first."""
    return tuple(_vocabulary()[topic][name])


def known_words(topic: str, name: str) -> frozenset[str]:
    """Return the words of a list whose order means nothing."""
    return frozenset(_vocabulary()[topic][name])
