"""Counts of requests."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["RequestStats"]


@dataclass(slots=True)
class RequestStats:
    """Counts since the embedder was made; a caller takes the difference of two `snapshot`s."""

    requests: int = 0
    retries: int = 0
    rate_limited: int = 0
    busy_seconds: float = 0.0
    in_flight: int = 0
    """Requests under way now."""
    host_seconds: dict[str, float] = field(default_factory=dict)
    """By host: seconds in which a request was under way there; empty where there are no hosts."""
