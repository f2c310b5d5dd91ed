"""Counts of the requests to an embedder."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class RequestStats:
    """The counts since an embedder was opened. For one call, take the difference of two copies."""

    requests: int = 0
    retries: int = 0
    """Requests that repeated an earlier one."""
    splits: int = 0
    """Requests for a part of a batch that was refused as a whole."""
    rate_limited: int = 0
    """Requests that a server answered by asking for a pause."""
    busy_seconds: float = 0.0
    """Seconds in which at least one request was running."""
    in_flight: int = 0
    """Requests running now."""
    host_seconds: dict[str, float] = field(default_factory=dict)
    """Seconds in which a request was running, by host; empty for an embedder without hosts."""
