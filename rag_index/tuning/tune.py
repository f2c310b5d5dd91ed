"""The search for the fastest settings for this machine and this embedder, with the user's own documents.

A grid of candidates is measured once, and the best of them again and again, in turn; medians decide.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import httpx

from rag_index.chunking import open_chunker
from rag_index.documents.batches import ChunkedDocument
from rag_index.embedders import identify
from rag_index.errors import EmbedderError, EmbedderUnavailable, SettingsError, SourceError
from rag_index.machine.resources import choose_worker_count, detect_machine, estimate_worker_memory
from rag_index.sources.scaffold import read_sample
from rag_index.tuning.probe import MAX_ROUND_SECONDS, Candidate, Probes, Space

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rag_index.settings import EmbedderSettings, Settings

FINALISTS = 5
"""How many of the fastest candidates, and of those that are cheaper and nearly as fast, are measured again."""
REPEATS = 3
AS_FAST = 0.95
"""Share of the best rate. A candidate that reaches it counts as equally fast; the cheapest of these is the knee."""

CLOSE = 0.75
"""Share of the best rate so far. Cheaper candidates that reach it are measured again: the best of many is lucky too."""

MIN_SECONDS, MAX_SECONDS = 0.25, 5.0
"""Seconds of a probe."""

GRID_SHARE = 0.6
"""Share of the budget that the grid may take; the rest is for measuring the best again."""
FIRST_PORT = 11434
SAMPLE_DOCUMENTS = 2000
MIN_INDEX_DOCUMENTS = 50

START_SECONDS = 60.0
STOP_SECONDS = 10.0
SERVICE_FOLDERS = ("/usr/share/ollama/.ollama/models", "/var/lib/ollama/models")
"""Where the installers of a system service put models."""


@dataclass(slots=True)
class Trial:
    """A candidate and its measured rates in characters per second, oldest first."""

    candidate: Candidate
    rates: list[float] = field(default_factory=list)
    finals: list[float] = field(default_factory=list)
    """The rates measured in the last part."""

    @property
    def rate(self) -> float:
        """The median rate of the last part, or of all parts if the candidate did not reach the last one."""
        return median(self.finals or self.rates) if self.rates else 0.0


class Search:
    """The search. `probe(candidate, seconds)` returns a rate, 0 if the candidate does not work; `clock` is seconds."""

    def __init__(
        self,
        probe: Callable[[Candidate, float], float],
        *,
        budget: float,
        clock: Callable[[], float],
    ) -> None:
        self._probe = probe
        self._budget = budget
        self._clock = clock
        self._started = clock()
        self.trials: dict[Candidate, Trial] = {}

    def run(self, grid: Sequence[Candidate], always: Sequence[Candidate], first: Sequence[Candidate] = ()) -> Trial:
        """Search and return the knee.

        `first` are measured first, so that it is known how long other candidates take. `always` (the current settings,
        the serial script) are measured to the end, whatever their rate.
        """
        for candidate in dict.fromkeys([*first, *always]):
            self._measure(candidate, MIN_SECONDS)
        self._started = self._clock()  # starting processes and loading models for the first time is not in the budget
        candidates = list(dict.fromkeys([*grid, *always]))
        seconds = self._seconds(GRID_SHARE * self._budget, len(candidates))
        for candidate in candidates:
            if self.spent < GRID_SHARE * self._budget:
                self._measure(candidate, seconds)
        self._decide(always)
        return self.knee

    @property
    def best(self) -> Trial:
        """The fastest trial, among the finalists if there are any."""
        return max(self._finalists() or self.trials.values(), key=lambda one: one.rate)

    @property
    def knee(self) -> Trial:
        """The cheapest trial within 5% of the best, among the finalists if there are any."""
        best = self.best
        return min(
            (one for one in self._finalists() or [best] if one.rate >= AS_FAST * best.rate),
            key=lambda one: (one.candidate.cost, -one.rate),
        )

    @property
    def spent(self) -> float:
        """Seconds of the budget that are spent."""
        return self._clock() - self._started

    def _finalists(self) -> list[Trial]:
        return [one for one in self.trials.values() if one.finals]

    @staticmethod
    def _seconds(together: float, probes: int) -> float:
        """Return how long each of so many probes takes."""
        return min(MAX_SECONDS, max(MIN_SECONDS, together / probes))

    def _measure(self, candidate: Candidate, seconds: float, *, final: bool = False) -> Trial:
        one = self.trials.setdefault(candidate, Trial(candidate))
        rate = self._probe(candidate, seconds)
        one.rates.append(rate)
        if final:
            one.finals.append(rate)
        return one

    def _decide(self, always: Sequence[Candidate]) -> None:
        best = self.best
        ranked = sorted(self.trials.values(), key=lambda one: -one.rate)
        cheaper = [one for one in ranked if one.rate >= CLOSE * best.rate and one.candidate.cost < best.candidate.cost]
        cheaper.sort(key=lambda one: one.candidate.cost)
        chosen = [*ranked[:FINALISTS], *cheaper[:FINALISTS]]
        finalists = list(dict.fromkeys([*(one.candidate for one in chosen), *always]))
        seconds = self._seconds(self._budget - self.spent, REPEATS * len(finalists))
        for number in range(REPEATS):
            for candidate in finalists if number % 2 == 0 else reversed(finalists):
                if number and self.spent >= self._budget:
                    return
                self._measure(candidate, seconds, final=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The trials of a search and its result. Rates are characters per second."""

    trials: list[Trial]
    """Fastest first."""
    knee: Trial
    best: Trial
    current: Trial
    """The trial of the current settings."""
    serial: Trial
    mean_chars: float
    seconds: float
    changes: dict[tuple[str, str], Any]
    """Keys that differ between the current settings and the knee: (table, key) to the new value, None to remove it."""

    def texts(self, rate: float) -> float:
        """Return a rate in texts of mean length per second."""
        return rate / self.mean_chars

    def rates_by_hosts(self) -> dict[int, float]:
        """Return the best rate for each number of hosts."""
        rates: dict[int, float] = {}
        for one in self.trials:
            rates[one.candidate.hosts] = max(rates.get(one.candidate.hosts, 0.0), one.rate)
        return dict(sorted(rates.items()))

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "knee": self._trial_json(self.knee),
            "best": self._trial_json(self.best),
            "now": self._trial_json(self.current),
            "serial": self._trial_json(self.serial),
            "servers": {str(hosts): round(self.texts(rate), 2) for hosts, rate in self.rates_by_hosts().items()},
            "changes": {f"{table}.{key}": value for (table, key), value in self.changes.items()},
            "tried": [self._trial_json(one) for one in self.trials],
            "seconds": round(self.seconds, 1),
        }

    def _trial_json(self, trial: Trial) -> dict[str, Any]:
        measured = {"texts_per_second": round(self.texts(trial.rate), 2), "probes": len(trial.rates)}
        return asdict(trial.candidate) | measured


def tune(
    settings: Settings,
    *,
    budget: float,
    hosts: Sequence[str] | None = None,
    on_probe: Callable[[Candidate, float, str], None] = lambda candidate, texts_per_second, error: None,
) -> Outcome:
    """Search for about `budget` seconds, on `hosts` if given instead of the settings' hosts.

    `hosts` are servers of this machine that run only now; the changes name the ports at which they would run for good.
    `on_probe` is called after each probe with the candidate, texts per second, and the error if it did not work.

    Raises:
        SourceError: there are no texts to embed.
        EmbedderUnavailable, EmbedderError: the embedder does not work with any candidate.
    """
    texts = sample_texts(settings)
    embedder = settings.embedder.model_copy(update={"hosts": list(hosts)} if hosts else {})
    identity = identify(embedder)
    mean_chars = sum(map(len, texts)) / len(texts)
    space = _space(embedder, mean_chars)
    current, serial = _current_candidate(settings, embedder, space), space.serial()

    with Probes(embedder, texts, identity, max_round=min(MAX_ROUND_SECONDS, budget / 25)) as probes:

        def probe(candidate: Candidate, seconds: float) -> float:
            rate = probes.measure(candidate, seconds)
            on_probe(candidate, rate / mean_chars, str(probes.error) if not rate else "")
            return rate

        search = Search(probe, budget=budget, clock=time.monotonic)
        grid = space.grid()
        probes.start(max(one.workers for one in grid))
        knee = search.run(grid, [current, serial], space.first())
        if not knee.rate:
            raise probes.error or EmbedderError("the embedder works with no setting")
    return Outcome(
        sorted(search.trials.values(), key=lambda one: -one.rate),
        knee,
        search.best,
        search.trials[current],
        search.trials[serial],
        mean_chars,
        search.spent,
        _changes(settings, knee.candidate, current, local_servers=hosts is not None),
    )


def sample_texts(settings: Settings) -> list[str]:
    """Return chunks of all indexes, mixed, in the same order each time.

    Raises SourceUnavailable or SourceError, the latter also if there are no texts.
    """
    size = max(MIN_INDEX_DOCUMENTS, SAMPLE_DOCUMENTS // len(settings.indexes))
    texts: list[str] = []
    error: SourceError | None = None
    for index in settings.indexes:
        chunker = open_chunker(settings, index, contexts=False)
        try:
            part = read_sample(settings, index, size)
        except SourceError as exc:
            error = exc
            continue
        chunked = chunker.chunk(part.documents)
        texts += [text for one in chunked if isinstance(one, ChunkedDocument) for text in one.texts_to_embed()]
    if not texts:
        raise error or SourceError("there are no documents with text to tune with")
    random.Random(1).shuffle(texts)  # noqa: S311 - this only mixes the texts
    return texts


def _space(embedder: EmbedderSettings, mean_chars: float) -> Space:
    machine = detect_machine()
    room = machine.workers_that_fit(estimate_worker_memory(embedder))
    max_workers = min(max(machine.processors, len(embedder.hosts)), max(1, room))
    return Space(embedder.kind, machine.processors, max_workers, len(embedder.hosts), mean_chars)


def _current_candidate(settings: Settings, embedder: EmbedderSettings, space: Space) -> Candidate:
    """Return the candidate of the current settings, without the levers that this kind of embedder does not have.

    If there are fewer servers to measure than the settings have, it is a candidate with those.
    """
    count = max(1, choose_worker_count(settings.parallel, estimate_worker_memory(settings.embedder)))
    workers = 1 if settings.parallel.serial else count
    if space.kind == "local":
        return space.candidate(workers=workers, batch_texts=1, num_thread=None)
    return Candidate(
        workers=workers,
        hosts=min(len(settings.embedder.hosts), space.max_hosts) if embedder.on_servers else 1,
        requests_in_flight=embedder.requests_in_flight if embedder.on_servers else 1,
        batch_texts=embedder.batch_texts,
        batch_chars=embedder.batch_chars,
        num_thread=embedder.num_thread if space.kind == "ollama" else None,
    )


def unit_ports(servers: int) -> list[int]:
    """Return the ports of this many Ollama servers that run on this machine for good."""
    return [FIRST_PORT + number for number in range(servers)]


def _changes(
    settings: Settings, knee: Candidate, current: Candidate, *, local_servers: bool
) -> dict[tuple[str, str], Any]:
    """Return the keys to change, so that the settings are what was measured: the servers belong to it."""
    changes: dict[tuple[str, str], Any] = {}
    if knee.workers != current.workers:
        changes["parallel", "workers"] = knee.workers
    if settings.parallel.serial and knee.workers > 1:
        changes["parallel", "serial"] = False
    for key in ("batch_texts", "batch_chars", "requests_in_flight", "num_thread"):
        if settings.embedder.kind != "local" and getattr(knee, key) != getattr(current, key):
            changes["embedder", key] = getattr(knee, key)
    hosts = settings.embedder.hosts
    if settings.embedder.on_servers:
        if local_servers and not (knee.hosts == len(hosts) and settings.embedder.local_hosts == hosts):
            hosts = [f"http://127.0.0.1:{port}" for port in unit_ports(knee.hosts)]
        if hosts[: knee.hosts] != settings.embedder.hosts:
            changes["embedder", "hosts"] = hosts[: knee.hosts]
            if settings.embedder.url is not None:
                changes["embedder", "url"] = None
    return changes


def model_folder(environ: Mapping[str, str]) -> Path:
    """Return the model folder: OLLAMA_MODELS, this user's default folder, or that of a system service.

    Raises:
        SettingsError: none of them holds models.
    """
    configured = environ.get("OLLAMA_MODELS")
    folders = [Path(configured)] if configured else [Path.home() / ".ollama" / "models", *map(Path, SERVICE_FOLDERS)]
    for folder in folders:
        if (folder / "manifests").is_dir():
            return folder
    places = ", ".join(map(str, folders))
    raise SettingsError(f"there are no Ollama models in {places}; pull one, or name the folder in OLLAMA_MODELS")


@contextmanager
def local_servers(program: str, count: int, environ: Mapping[str, str]) -> Iterator[list[str]]:
    """Start `count` servers and yield their addresses. They are stopped, and their models unloaded, as the block ends.

    Each has its own port; all share one model folder.

    Raises:
        SettingsError: there is no model folder.
        EmbedderUnavailable: a server does not start.
    """
    models = model_folder(environ)
    servers: list[subprocess.Popen[bytes]] = []
    try:
        urls = []
        for _ in range(count):
            port = _free_port()
            environment = {**environ, "OLLAMA_HOST": f"127.0.0.1:{port}", "OLLAMA_MODELS": str(models)}
            servers.append(
                subprocess.Popen(
                    [program, "serve"],
                    env=environment | {"OLLAMA_NOPRUNE": "1"},  # a server must not prune models that others share
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C ends the search first, and the search ends the servers
                )
            )
            urls.append(f"http://127.0.0.1:{port}")
        for server, url in zip(servers, urls, strict=True):
            _wait_until_ready(server, url)
        yield urls
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            _stop(server)


def _wait_until_ready(server: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(trust_env=False, timeout=2.0) as client:
        while time.monotonic() < deadline and server.poll() is None:
            with suppress(httpx.TransportError):
                if client.get(f"{url}/api/version").is_success:
                    return
            time.sleep(0.05)
    ended = server.poll() is not None
    reason = f"ended with {server.returncode}" if ended else f"did not answer within {START_SECONDS:.0f} s"
    raise EmbedderUnavailable(f"the Ollama server started at {url} {reason}; check that `ollama serve` works here")


def _stop(server: subprocess.Popen[bytes]) -> None:
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # including the processes that run its models
        server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
