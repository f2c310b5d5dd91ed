"""The table `[indexes.gate]` of a settings file."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic looks it up

from pydantic import Field

from rag_index.settings.values import Section, Share


class GateSettings(Section):
    """`[indexes.gate]`: what a rebuilt collection must still find before it goes live."""

    queries: Path
    """The golden file: queries, and the documents that each of them should find."""
    metric: str = Field(default="recall@10", pattern=r"^[^@\s]+( [^@\s]+)*@[1-9]\d{0,3}$")
    """The measure of a search, such as recall@10, MRR@10 or nDCG@10."""
    max_loss: Share = 0.02
    """How much lower the mean of the metric may be in the rebuilt collection than in the live one."""
