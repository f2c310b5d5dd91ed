"""What a run knows of its Dask workers: the outages that they send, deaths, and how many there are.

A worker that dies is started again by Dask, and its shards raise KilledWorker, which
`task_steps` turns into ProcessDied. `Liveness` counts deaths, and ends the run if no worker comes
back.
"""

from __future__ import annotations

import threading
import time
from dataclasses import asdict
from itertools import chain
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
"""Seconds between two looks of a worker at its outages. Chosen; nothing depends on it."""
WORKERS_CHECK_SECONDS = 5.0
"""Seconds between two checks. Each costs a message to the scheduler."""
GONE_SECONDS = 180.0
"""Seconds for which there may be no worker: a dead one is restarted within seconds, on a busy
machine within a minute."""


class RunPlugin(WorkerPlugin):  # type: ignore[misc]  # Dask has no types
    """Gives a worker its number, and sends its outages to the run whenever they change."""

    name = "rag-index"

    def setup(self, worker: Worker) -> None:
        """Begin, in this worker's process."""
        shorten_lost_events()
        name = worker.name
        # In a cluster of the run, the name is a number. Elsewhere it is a text, such as an address.
        number = name if isinstance(name, int) else sum(map(ord, str(name or "")))
        begin_worker(number)
        self._ended = threading.Event()
        threading.Thread(target=self._send, args=(worker,), daemon=True, name="status").start()

    def teardown(self, worker: Worker) -> None:
        """End it."""
        self._ended.set()

    def _send(self, worker: Worker) -> None:
        last: tuple[Outage, ...] = ()
        while not self._ended.wait(STATUS_SECONDS):
            now = outages()
            if now != last:
                last = now
                sent = [asdict(outage) for outage in now]
                worker.log_event(TOPIC, {"worker": worker.address, "outages": sent})


class Liveness:
    """Receives the outages that workers send, counts workers that die, and ends the run if there
    are no workers for long."""

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
        # Those of earlier indexes, which are counted already.
        self._deaths = frozenset(self._find_deaths())

    def _find_deaths(self) -> list[tuple[float, str]]:
        """Return the time and address of each worker that ended unexpectedly."""
        # A request: a subscription would also bring the events of the cluster's end.
        events = self._client.get_events("all")
        deaths: list[tuple[float, str]] = []
        for at, event in events:
            if event.get("action") == "remove-worker" and not event["expected"]:
                deaths.append((at, event["worker"]))
        return deaths

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
        sent = event[1]
        worker = sent["worker"]
        self._sent[worker] = [Outage(**fields) for fields in sent["outages"]]

    @property
    def outages(self) -> list[Outage]:
        """Return the outages that each worker has sent last."""
        # A copy: the client's thread may receive meanwhile.
        by_worker = list(self._sent.values())
        return list(chain.from_iterable(by_worker))

    def tick(self) -> None:
        """Check for workers if the last check is old enough. Raises TransientError if there has
        been no worker for three minutes."""
        now = self._clock()
        if now - self._checked < WORKERS_CHECK_SECONDS:
            return
        # There was no check for long, as during a commit, so nothing is known of that time.
        if now - self._checked > GONE_SECONDS / 2:
            self._seen = now
        self._checked = now
        try:
            found = self._client.nthreads()
            self.note_deaths()
        except OSError:
            # A lost connection cancels the shards in flight, and these errors end the run.
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
