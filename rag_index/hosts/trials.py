"""Trials: whether a text or a host is at fault when a request fails.

- A host that refuses connections or asks for a pause is at fault: such a failure does not count.
- A text that fails goes to another host next, and is sent alone from then on.
- When it fails for the second time, it is on trial at the host where it did: it is sent there again whenever that host
  has answered a plain request. It is at fault only if it fails there three times in a row, and the host answers a
  plain request after each. A host that fails at the plain request, or rests, ends the trial, and the text goes to any
  host again. Hosts that fail in turn thus cost no text.
- A text that failed ten times without a result is at fault as soon as some host answers a plain request. It may kill
  the server each time, so that no plain request is answered right after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rag_index.hosts.pool import Host

ROAMING_TRIES = 2
"""Failures of a text before it is tried on one host only."""
TRIAL_FAILURES = 3
"""Failures in a row on one host that prove a text at fault, if the host answers a plain request after each."""
ALONE_LIMIT = 10
"""Failures of a text after which it is at fault even if no host answered a plain request after each. Otherwise, a text
that kills the whole server would be sent for ever."""


@dataclass(slots=True)
class Trial:
    """A host on which a text failed, and the failures there since."""

    host: Host
    plain_failures: int
    """The value of `Host.plain_failures` when the trial began."""
    failures: int = 1

    @property
    def host_failed(self) -> bool:
        """Whether the host has failed at a plain request since the trial began."""
        return self.host.plain_failures > self.plain_failures

    @property
    def proven(self) -> bool:
        """Whether the text is at fault if the host answers one more plain request."""
        return self.failures >= TRIAL_FAILURES


@dataclass(slots=True, kw_only=True)
class Request:
    """What is sent in one request, and its failures so far."""

    sends: int = 0
    tries: int = 0
    """Failures that a text may have caused."""
    error: Exception | None = None
    failed_at: float = 0.0
    trial: Trial | None = None

    @property
    def single(self) -> bool:
        """Whether there is only one text, so that no other can be at fault."""
        return True

    @property
    def suspect(self) -> bool:
        """Whether the request failed so often that it is at fault if any host answers a plain request now."""
        return self.tries >= ALONE_LIMIT

    def record_failure(self, error: Exception, now: float) -> None:
        """Count a request that ended with an error."""
        self.tries += 1
        self.error, self.failed_at = error, now

    def put_on_trial(self, host: Host) -> bool:
        """Count a failure on `host`, and return whether to try the text on that host only.

        This is never the case for several texts.
        """
        if not self.single:
            return False
        if self.trial is None or self.trial.host is not host or self.trial.host_failed:
            self.trial = Trial(host, host.plain_failures)
        else:
            self.trial.failures += 1
        return self.tries >= ROAMING_TRIES

    @property
    def avoided(self) -> Host | None:
        """The host where the text failed last: it goes to any other one first."""
        return self.trial.host if self.trial is not None else None
