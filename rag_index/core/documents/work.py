"""The work of a run: the time and the requests that its documents took."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class Work:
    """The time and the requests for chunking, embedding and writing some chunks. Adding and
    subtracting work on each field.

    An embedder counts its requests in one of these, a chunker its contexts, and each shard has its
    own; a run has the sum over its shards.

    Example:
        total = first + second
        since = embedder.stats - before
    """

    seconds: float = 0.0
    """Wall seconds of chunking and embedding, without those in which a server did not answer."""
    embed_seconds: float = 0.0
    """The part of `seconds` in which at least one embedding request or call was running."""
    chunk_seconds: float = 0.0
    """The part of `seconds` spent on chunking, which includes writing contexts."""
    asked_seconds: float = 0.0
    """The sum over the embedder's servers of the seconds in which the server had at least one
    request."""
    waited_seconds: float = 0.0
    """Seconds that calls waited for calls of other threads."""
    write_seconds: float = 0.0
    """Seconds spent on writing points to the store, in the flow or in workers."""
    texts: int = 0
    """Texts sent to the embedder; equal texts are sent once."""
    chars: int = 0
    """Characters of the documents."""
    chunks: int = 0
    """Chunks that were written."""
    reused: int = 0
    """Chunks whose vector was copied from the store."""
    requests: int = 0
    retries: int = 0
    """Those requests that repeated an earlier one."""
    rate_limited: int = 0
    """Requests that a server answered with a request for a pause."""
    contexts_made: int = 0
    """Chunks whose context a model wrote in this run."""
    contexts_cached: int = 0
    """Chunks whose context was in the cache."""
    contexts_missing: int = 0
    """Chunks that lack the context they should have."""

    def __add__(self, other: Work) -> Work:
        total = Work()
        for number in fields(self):
            setattr(total, number.name, getattr(self, number.name) + getattr(other, number.name))
        return total

    def __sub__(self, other: Work) -> Work:
        since = Work()
        for number in fields(self):
            setattr(since, number.name, getattr(self, number.name) - getattr(other, number.name))
        return since
