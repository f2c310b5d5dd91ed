"""Waiting for hosts that are down or asked for a pause, and saying so."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from rag_index.errors import BadVectors, EmbedderUnavailable, RateLimited

if TYPE_CHECKING:
    from rag_index.hosts.pool import Host, Pool

__all__ = ["Recovery"]

PROBE_SECONDS = 5.0
"""What is left to a call that comes when the patience of those before it is at its end: enough to ask each host."""
NEWS_SECONDS = 30.0
"""Between two lines of the log, while no host takes texts."""

log = logging.getLogger("rag_index.embedders")


class Recovery:
    """How long it is that every host of a pool rests, and whether that is too long.

    The pool remembers since when no host took texts, so that calls one after another do not each wait anew. A host
    that may be asked again is no end of it, only one that did answer well (`over`).
    """

    def __init__(self, pool: Pool, patience: float) -> None:
        self._pool, self._patience = pool, patience
        self._began: float | None = None
        self._news_at = 0.0

    def look(self, now: float) -> float | None:
        """When to look again; None while some host takes texts. Call it when no text is under way.

        Raises EmbedderUnavailable, RateLimited or BadVectors, whichever all hosts have in common, when it was long
        enough, or when no host means to come back in time.
        """
        if self._pool.dry_since is None:
            if not self._pool.dry(now):
                return None
            self._pool.dry_since = now
        if self._began is None:
            self._began = self._news_at = now
        since = self._pool.dry_since
        until = max(since + self._patience, self._began + min(self._patience, PROBE_SECONDS))
        resumes = [host.not_before if not host.down else now for host in self._pool.hosts]
        if now >= until or min(resumes) > until:
            raise self._unavailable(now)
        if now >= self._news_at:
            waited = f"for {now - since:.0f} s now, " if now > since else ""
            log.warning(
                "no Ollama host takes texts, waiting %sat most %g s: %s", waited, self._patience, self._reasons()
            )
            self._news_at = now + NEWS_SECONDS
        return min(until, self._news_at)

    def over(self, host: Host, now: float) -> None:
        """A host answered well."""
        if self._pool.dry_since is not None:
            log.warning("%s takes texts again after %.0f s", host.url, now - self._pool.dry_since)
            self._pool.dry_since = self._began = None

    def _reasons(self) -> str:
        return "; ".join(str(host.error or f"{host.url} rests") for host in self._pool.hosts)

    def _unavailable(self, now: float) -> Exception:
        errors = [host.error for host in self._pool.hosts]
        waited = f" within {self._patience:g} s" if self._patience else ""
        message = f"no Ollama host could be used{waited}: {self._reasons()}"
        if all(isinstance(error, BadVectors) for error in errors):
            return BadVectors(message)
        if all(isinstance(error, RateLimited) for error in errors):
            return RateLimited(message, max(0.0, min(host.not_before for host in self._pool.hosts) - now))
        return EmbedderUnavailable(message)
