"""Decides how long a call waits when every host is down or asked for a pause, and logs the wait."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from rag_index.errors import BadVectors, EmbedderUnavailable, RateLimited

if TYPE_CHECKING:
    from rag_index.hosts.pool import Host, Pool

MIN_WAIT_SECONDS = 5.0
"""How long a call waits at least, even if earlier calls have used up the patience: enough to probe each host."""
LOG_SECONDS = 30.0
"""Time between two log lines while no host accepts texts."""

log = logging.getLogger("rag_index.embedders")


class Recovery:
    """The wait of one call while every host of its pool rests.

    The pool stores since when all hosts have been resting, so that successive calls share one wait instead of each
    starting its own. Only a host that answers well ends the wait (`host_answered`), not one whose rest is over.
    """

    def __init__(self, pool: Pool, patience: float) -> None:
        self._pool, self._patience = pool, patience
        self._began: float | None = None
        self._log_at = 0.0

    def next_check(self, now: float) -> float | None:
        """Return when to call this again, or None while some host accepts texts. Call it with no request in flight.

        Raises EmbedderUnavailable if the patience is used up, or if no host will be back before that. If every host has
        the same reason, raises RateLimited or BadVectors instead.
        """
        if self._pool.all_resting_since is None:
            if not self._pool.all_resting(now):
                return None
            self._pool.all_resting_since = now
        if self._began is None:
            self._began = self._log_at = now
        since = self._pool.all_resting_since
        until = max(since + self._patience, self._began + min(self._patience, MIN_WAIT_SECONDS))
        resumes = [host.not_before if not host.down else now for host in self._pool.hosts]
        if now >= until or min(resumes) > until:
            raise self._unavailable(now)
        if now >= self._log_at:
            waited = f" ({now - since:.0f} s so far)" if now > since else ""
            log.warning(
                "no Ollama host accepts texts, waiting at most %g s%s: %s", self._patience, waited, self._reasons()
            )
            self._log_at = now + LOG_SECONDS
        return min(until, self._log_at)

    def host_answered(self, host: Host, now: float) -> None:
        """End the wait, because this host has answered well."""
        if self._pool.all_resting_since is not None:
            log.warning("%s accepts texts again after %.0f s", host.url, now - self._pool.all_resting_since)
            self._pool.all_resting_since = self._began = None

    def _reasons(self) -> str:
        return "; ".join(str(host.error or f"{host.url} is paused") for host in self._pool.hosts)

    def _unavailable(self, now: float) -> Exception:
        errors = [host.error for host in self._pool.hosts]
        waited = f" within {self._patience:g} s" if self._patience else ""
        message = f"no Ollama host could be used{waited}: {self._reasons()}"
        if all(isinstance(error, BadVectors) for error in errors):
            return BadVectors(message)
        if all(isinstance(error, RateLimited) for error in errors):
            return RateLimited(message, max(0.0, min(host.not_before for host in self._pool.hosts) - now))
        return EmbedderUnavailable(message)
