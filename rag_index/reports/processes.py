"""What the processes of a run are doing: requests in flight, and the services that they wait for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from rag_index.outages import Outage

FLOW = "flow"
"""The name of the flow's own process. Workers have their addresses."""


class Processes:
    """The last known state of each process. Any thread may use it."""

    def __init__(self) -> None:
        self._states: dict[str, tuple[int, tuple[Outage, ...]]] = {}
        self._changing = threading.Lock()

    def set(self, process: str, *, requests: int = 0, outages: tuple[Outage, ...] = ()) -> None:
        """Record how many requests to an embedder a process has in flight, and which services it waits for."""
        with self._changing:
            self._states[process] = requests, outages

    def keep_workers(self, addresses: Collection[str]) -> None:
        """Forget the workers that are not among these: one that died waits for nothing any more."""
        with self._changing:
            self._states = {
                name: state for name, state in self._states.items() if name == FLOW or name in addresses
            }  # fmt: skip

    @property
    def requests(self) -> int:
        """The number of requests that all processes have in flight."""
        with self._changing:
            return sum(requests for requests, _ in self._states.values())

    @property
    def outages(self) -> list[Outage]:
        """The services that some process waits for, each once, the longest silent first."""
        with self._changing:
            found = [outage for _, outages in self._states.values() for outage in outages]
        first: dict[str, Outage] = {}
        for outage in sorted(found, key=lambda outage: outage.since):
            first.setdefault(outage.service, outage)
        return list(first.values())
