"""The table `[indexes.context]` of a settings file."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from rag_index.settings.values import HttpUrl, Number, PositiveInt, Section, Whole

__all__ = ["CHUNK", "DOCUMENT", "ContextSettings"]

DOCUMENT, CHUNK = "{document}", "{chunk}"
"""What a prompt must name: the places where a document, or a part of it, and the chunk are put."""


def _frame(prompt: str) -> str:
    if any(prompt.count(name) != 1 for name in (DOCUMENT, CHUNK)):
        raise ValueError(f"should name {DOCUMENT} and {CHUNK} once each, as the places where both are put")
    return prompt


class ContextSettings(Section):
    """`[indexes.context]`: a model writes of each chunk where in its document it stands."""

    model: str = Field(min_length=1)
    """A generating model of the Ollama servers."""
    hosts: list[HttpUrl] | None = Field(default=None, min_length=1)
    """The Ollama servers; those of an `ollama` embedder where none are given, else the one on this machine."""
    concurrency: PositiveInt = 10
    """Chunks a worker asks for at once."""
    max_chars: Whole = Field(default=300, ge=20)
    """Most characters of a context."""
    prompt: Annotated[str, AfterValidator(_frame)] | None = None
    """Names {document} and {chunk}."""
    timeout: Number = Field(default=120.0, gt=0)
    """Seconds for one question."""
    required: bool = False
    """Whether a document is not indexed where a chunk of it has no context."""
    num_ctx: Whole = Field(default=8192, ge=1024)
    """Tokens that the model is given room for, question and answer; fewer where it takes fewer."""
    keep_alive: str = "30m"
    """How long a server keeps the model loaded."""
