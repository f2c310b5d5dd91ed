"""Queries that wait for their vectors, each for its own. Embedders on servers take them as they come."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


@dataclass(slots=True, eq=False)
class Query:
    """A text without its prefix, and the future of its vector. Whoever cancels the future wants it no longer."""

    text: str
    future: Future[NDArray[np.float32]] = field(default_factory=Future)

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for the vector."""
        return not self.future.done()

    def settle(self, entry: NDArray[np.float32] | Exception) -> None:
        """Give the query its vector or its error, unless it has one, or nobody waits. One thread may do this."""
        if self.future.done() or not self.future.set_running_or_notify_cancel():
            return
        if isinstance(entry, Exception):
            self.future.set_exception(entry)
        else:
            self.future.set_result(entry)


@runtime_checkable
class TakesQueries(Protocol):
    """The interface of an embedder that embeds queries on several servers at once.

    It compares the model of each server with the expected one before that server gets a query.
    """

    def take_queries(self, queries: Sequence[Query]) -> None:
        """Start embedding the queries, with the query prefix, and return at once. Any thread may call this.

        Each query gets its vector or its own error: TextTooLong, TextRefused or BadVectors if the text is the reason,
        and EmbedderUnavailable, RateLimited, ModelMissing, ModelChanged or EmbedderError if no server can be used.
        """
