"""The table `[indexes.context]` of a settings file."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from rag_index.settings.values import HttpUrl, Number, PositiveInt, Section, Whole

DOCUMENT, CHUNK = "{document}", "{chunk}"
"""Placeholders of a prompt: for the document, or a part of it, and for the chunk."""


def _check_prompt(prompt: str) -> str:
    if any(prompt.count(name) != 1 for name in (DOCUMENT, CHUNK)):
        raise ValueError(f"should contain {DOCUMENT} and {CHUNK} exactly once each")
    return prompt


class ContextSettings(Section):
    """`[indexes.context]`: the model that writes for each chunk a sentence about its place in the document."""

    model: str = Field(min_length=1)
    """A generative model that the Ollama servers have."""
    hosts: list[HttpUrl] | None = Field(default=None, min_length=1)
    """The Ollama servers. By default those of an `ollama` embedder, or else the one on this machine."""
    concurrency: PositiveInt = 10
    """The number of requests that a worker sends at once, one for each chunk."""
    max_chars: Whole = Field(default=300, ge=20)
    """The maximum length of a context, in characters."""
    prompt: Annotated[str, AfterValidator(_check_prompt)] | None = None
    """The prompt, with the placeholders {document} and {chunk}. By default the built-in one."""
    timeout: Number = Field(default=120.0, gt=0)
    """The time limit of one request, in seconds."""
    required: bool = False
    """Whether a document fails, and is not indexed, if one of its chunks gets no context."""
    num_ctx: Whole = Field(default=8192, ge=1024)
    """The context window in tokens, for request and answer. A model with a smaller window uses its own."""
    keep_alive: str = "30m"
    """How long a server keeps the model loaded after a request."""
