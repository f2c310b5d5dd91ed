"""What the Dask workers of a run send it: the outages that they see, and whether there are any
workers."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from distributed import WorkerPlugin

from rag_index.core.recovery import Outage, outages
from rag_index.errors import TransientError
from rag_index.etl.embed import begin_worker
from rag_index.orchestration.api_outage import shorten_lost_events

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client, Worker

    from rag_index.core.reports.progress import RunRecord

TOPIC = "rag-index-status"
STATUS_SECONDS = 1.0
WORKERS_CHECK_SECONDS = 5.0
"""Time between two checks. Each costs a message to the scheduler."""
GONE_SECONDS = 180.0
"""How long there may be no worker: one that died is restarted within seconds, on a busy machine
within a minute."""


class RunPlugin(WorkerPlugin):  # type: ignore[misc]  # Dask has no types
    """Tells a worker which one it is, and sends its outages to the run whenever they change."""

    name = "rag-index"

    def setup(self, worker: Worker) -> None:
        """Begin, in this worker's process."""
        shorten_lost_events()
        name = worker.name  # the number of the worker in a cluster of ours
        begin_worker(name if isinstance(name, int) else sum(map(ord, str(name or ""))))
        self._ended = threading.Event()
        threading.Thread(target=self._send, args=(worker,), daemon=True, name="status").start()

    def teardown(self, worker: Worker) -> None:
        """End it."""
        self._ended.set()

    def _send(self, worker: Worker) -> None:
        last: tuple[Outage, ...] = ()
        while not self._ended.wait(STATUS_SECONDS):
            if (now := outages()) != last:
                last = now
                worker.log_event(
                    TOPIC, {"worker": worker.address, "outages": [asdict(one) for one in now]}
                )


class Liveness:
    """Has the outages that workers send, counts workers that die, and ends the run if there are
    none for long."""

    def __init__(
        self, client: Client, record: RunRecord, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client, self._record, self._clock = client, record, clock
        self._sent: dict[str, list[Outage]] = {}
        self._checked = self._seen = clock()
        self.threads = 0
        """How many threads the workers had at the last check."""
        client.register_plugin(RunPlugin())
        client.subscribe_topic(TOPIC, self._receive)
        self._deaths = frozenset(self._find_deaths())  # of earlier indexes

    def _find_deaths(self) -> list[tuple[float, str]]:
        """Return the time and address of each worker that is gone though nobody asked it to go."""
        events = self._client.get_events(
            "all"
        )  # asked for: a subscription would bring those of the cluster's end
        removed = [
            (at, said)
            for at, said in events
            if said.get("action") == "remove-worker" and not said["expected"]
        ]
        return [(at, said["worker"]) for at, said in removed]

    def note_deaths(self) -> None:
        """Log and count the workers that have died since the last call. Raises OSError without a
        connection."""
        found = frozenset(self._find_deaths())
        for _ in found - self._deaths:
            self._record.outcome.workers_died += 1
            self._record.log.warning(
                "a worker process died (killed, out of memory, or a crash); what it had is embedded"
                " again"
            )
        self._deaths = found

    def _receive(self, event: Any) -> None:
        told = event[1]
        self._sent[told["worker"]] = [Outage(**fields) for fields in told["outages"]]

    @property
    def outages(self) -> list[Outage]:
        """Return the outages that each worker has sent last."""
        return [outage for sent in list(self._sent.values()) for outage in sent]

    def tick(self) -> None:
        """Check for workers if the last check is old enough. Raises TransientError if there has
        been no worker for three minutes."""
        now = self._clock()
        if now - self._checked < WORKERS_CHECK_SECONDS:
            return
        if (
            now - self._checked > GONE_SECONDS / 2
        ):  # there was no check in between, so nothing is known of that time
            self._seen = now
        self._checked = now
        try:
            found = self._client.nthreads()
            self.note_deaths()
        except OSError:  # a lost connection cancels what is in flight, which ends the waiting
            self._seen = now
            return
        self.threads = sum(found.values())
        for gone in set(self._sent) - found.keys():
            self._sent.pop(gone, None)
        if found:
            self._seen = now
        elif now - self._seen >= GONE_SECONDS:
            raise TransientError(
                f"there has been no worker process for {now - self._seen:.0f} s, and none is"
                " starting; what is committed is kept: check that there is memory for workers, or"
                " that those of [parallel] address run, then run again"
            )
