"""Different queries at the same time: embedded together on all hosts, and one at a time on the first, as before."""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.searches.fan_out import TimedStore
from benchmarks.searches.printing import line
from rag_index import Retriever
from rag_index.components.embedders import open_embedder
from tests.fakes.ollama import FakeOllama
from tests.search.desk import Desk

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from rag_index.components.embedders import Embedder, EmbedderIdentity
    from rag_index.core.settings import Settings

MODEL = "nomic-embed-text"
SECONDS = 0.1
HOSTS = (1, 2, 4)


def serve(pipe: Any, per_text: bool) -> None:
    """Run a loopback Ollama in this process, which takes 100 ms a request, or a text."""
    with FakeOllama(model=MODEL) as ollama:
        if per_text:
            ollama.seconds_per_text = SECONDS
        else:
            ollama.fault("hang", seconds=SECONDS)
        pipe.send(ollama.url)
        pipe.recv()


class EmptyStore(TimedStore):
    """A store that answers at once and finds nothing."""

    def search(self, *_: Any, **__: Any) -> list[Any]:
        return []


class OneAtATime:
    """An embedder that takes one query at a time, as all did before."""

    def __init__(self, *given: Any, **named: Any) -> None:
        self._embedder = open_embedder(*given, **named)
        self.identity, self.close = self._embedder.identity, self._embedder.close

    def embed_queries(self, texts: Sequence[str]) -> list[Any]:
        return [self._embedder.embed_queries([text])[0] for text in texts]


def queries(arguments: argparse.Namespace) -> None:
    for per_text, cost in ((False, "a request takes 100 ms"), (True, "a text takes 100 ms")):
        print(f"\n{arguments.count} different queries at once, {cost}, median of {arguments.repeat}")
        with ExitStack() as stack:
            urls = [stack.enter_context(_server(per_text)) for _ in range(max(HOSTS))]
            for count in HOSTS:
                before, now = _seconds(urls[:count], arguments.count, arguments.repeat)
                line(
                    f"{count} host{'s' * (count > 1)}: one at a time, together, ratio",
                    f"{before:.2f} s", f"{now:.2f} s", f"{before / now:.1f} times",
                )  # fmt: skip


@contextmanager
def _server(per_text: bool) -> Iterator[str]:
    """Yield the address of a loopback Ollama in a process of its own."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(there, per_text), daemon=True)
    process.start()
    yield here.recv()
    process.terminate()


def _seconds(urls: list[str], count: int, repeat: int) -> tuple[float, float]:
    """Return the median seconds for `count` queries, one at a time and together, measured in turn."""
    hosts = ", ".join(f'"{url}"' for url in urls)
    extra = f'[embedder]\nkind = "ollama"\nmodel = "{MODEL}"\nhosts = [{hosts}]\n[retrieve]\ntimeout = 60\n'
    with tempfile.TemporaryDirectory() as folder:
        settings = Desk(Path(folder), extra=extra, names=("notes",)).settings
        with closing(open_embedder(settings.embedder)) as embedder:
            identity = embedder.identity()
        times: dict[Any, list[float]] = {OneAtATime: [], open_embedder: []}
        for number in range(repeat):
            for opener, seconds in times.items():
                seconds.append(asyncio.run(_ask(settings, identity, opener, [f"{number} {n}" for n in range(count)])))
    return median(times[OneAtATime]), median(times[open_embedder])


async def _ask(
    settings: Settings, identity: EmbedderIdentity, opener: Callable[..., Embedder], texts: list[str]
) -> float:
    store = EmptyStore(identity, [settings.alias("notes")])
    async with Retriever(settings, open_store=lambda: store, open_embedder=opener) as retriever:
        for round_ in range(2):  # after two rounds every host has embedded something
            await asyncio.gather(*(retriever.search(f"warm up {round_} {n}") for n in range(8)))
        started = time.perf_counter()
        await asyncio.gather(*(retriever.search(text) for text in texts))
        return time.perf_counter() - started
