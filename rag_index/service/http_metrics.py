"""How many requests there were, how they ended and how long they took, in memory that does not grow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

if TYPE_CHECKING:
    from starlette.types import Scope

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "DELETE", "PUT", "PATCH"})


class HttpMetrics:
    """The requests of one application, by route: an address that no route has counts as `other`."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "rag_index_http_requests", "Requests by route and status.", ["method", "route", "status"],
            registry=self._registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "rag_index_http_seconds", "Time of a request.", ["route"], buckets=BUCKETS, registry=self._registry
        )

    def add(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request that has been answered."""
        route = getattr(scope.get("route"), "path", None) or _mounted(scope)
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def to_prometheus(self) -> str:
        """Return the counts in Prometheus' text format."""
        return generate_latest(self._registry).decode()


def _mounted(scope: Scope) -> str:
    """Return the name of what is mounted and has routes of its own: the agents' interface, or the page."""
    if scope["path"] == "/mcp" or scope["path"].startswith("/mcp/"):
        return "/mcp"
    return "/" if scope["path"] == "/" else "other"
