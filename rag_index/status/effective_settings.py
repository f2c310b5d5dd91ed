"""The settings in force: each value, where it comes from, and for automatic ones what they come to and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from rag_index.database.urls import database_url
from rag_index.errors import RagIndexError
from rag_index.indexing.sharding import MEAN_CHARS, first_rate
from rag_index.ledger import Ledger
from rag_index.machine.resources import OWN_MEMORY, memory_each, survey, worker_memory, workers_for
from rag_index.settings import SECTIONS, IndexSettings, origins
from rag_index.settings.environment import keys_of, tables_of
from rag_index.sources import open_source
from rag_index.stores import live_aliases

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rag_index.machine.resources import Machine
    from rag_index.settings import EmbedderSettings, ParallelSettings, Settings
    from rag_index.settings.environment import Place

__all__ = ["Fact", "Value", "explained", "effective_settings"]

COMMAND = "this command"
DEFAULT = "default"
MASK = "***"


@dataclass(frozen=True, slots=True)
class Value:
    """One setting; `value` is fit to be shown, `why` is there for automatic ones."""

    key: str
    value: Any
    source: str
    """The settings file's name, an environment variable's, "this command" or "default"."""
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {"key": self.key, "value": self.value, "source": self.source} | ({"why": self.why} if self.why else {})


@dataclass(frozen=True, slots=True)
class Fact:
    """Something automatic values come from: what, how much, and a sentence on it."""

    name: str
    value: Any
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {"name": self.name, "value": self.value, "sentence": self.sentence}


def effective_settings(settings: Settings, given: Mapping[str, Any]) -> list[Value]:
    """Every setting; `given` are keys ("parallel.workers") that the command line says. Nothing is connected to."""
    places = origins(settings.path)
    why = _reasons(settings, survey())
    project = places.get(("project",), DEFAULT)
    found = [Value("project", settings.project, project, "the folder's name" if project == DEFAULT else "")]
    for section in SECTIONS:
        model = getattr(settings, section)
        for key, name in _attributes(type(model)):
            dotted = f"{section}.{key}"
            source = COMMAND if given.get(dotted) is not None else places.get((section, key), DEFAULT)
            found.append(Value(dotted, _redacted(settings, getattr(model, name)), source, why.get(dotted, "")))
    for number, index in enumerate(settings.indexes):
        dotted, place = f"indexes.{index.name}", ("indexes", number)
        for key, name in _attributes(IndexSettings):
            value = getattr(index, name)
            if key in tables_of(IndexSettings) and value is not None:
                found += _of_table(settings, f"{dotted}.{key}", value, (*place, key), places)
            else:
                source = places.get((*place, key), DEFAULT)
                found.append(Value(f"{dotted}.{key}", _redacted(settings, value), source))
    return found


def _of_table(
    settings: Settings, dotted: str, table: Any, place: Place, places: Mapping[Place, str]
) -> Iterator[Value]:
    """The keys of a table within an index."""
    for key, name in _attributes(type(table)):
        source = places.get((*place, key), DEFAULT)
        yield Value(f"{dotted}.{key}", _redacted(settings, getattr(table, name)), source)


def explained(settings: Settings) -> list[Fact]:
    """What automatic values come from: this machine, and the documents there are.

    Each index's source is asked for a count; what does not answer is said, and raises nothing.
    """
    return [*_machine(survey(), settings.embedder), *_documents(settings)]


def _attributes(model: Any) -> Iterator[tuple[str, str]]:
    """Keys as the file has them, with the attribute's name."""
    names = {field.alias or name: name for name, field in model.model_fields.items()}
    return ((key, names[key]) for key in keys_of(model))


def _redacted(settings: Settings, value: Any) -> Any:
    """A value as JSON has it: secrets masked, databases without password and options, paths as text."""
    if isinstance(value, SecretStr):
        try:
            url = database_url(value.get_secret_value(), settings.folder)
        except ValueError:
            return MASK
        return url.set(query={}).render_as_string(hide_password=True)
    return value if isinstance(value, str | int | float | bool | list | None) else str(value)


# Why an automatic value is what it is

_HOW_KNOWN = {
    "local": "measured, with the largest shards",
    "ollama": "measured; the model is in the server",
    "sentence-transformers": "an estimate: torch, and the weights; set workers where you know better",
}


def _reasons(settings: Settings, machine: Machine) -> dict[str, str]:
    parallel, embedder = settings.parallel, settings.embedder
    found: dict[str, str] = {}
    if parallel.serial:
        found["parallel.workers"] = "not used: serial is true"
    elif parallel.address:
        found["parallel.workers"] = f"not used: as many as the cluster at {parallel.address} has"
    elif parallel.workers == "auto":
        found["parallel.workers"] = _why_workers(parallel, machine, worker_memory(embedder))
    elif parallel.workers > machine.processors:
        found["parallel.workers"] = f"more than the {machine.processors} processors that this process may use"
    if parallel.memory == "auto":
        found["parallel.memory"] = "what this machine, or the cgroup, has" if machine.memory else "not known here"
    if parallel.worker_memory == "auto":
        found["parallel.worker_memory"] = f"taken to need {_mb(worker_memory(embedder))}; no worker is ended for more"
    if parallel.shard_documents == "auto":
        found["parallel.shard_documents"] = f"what takes {parallel.shard_seconds:g} s at the rate that is measured"
    if embedder.kind == "ollama" and embedder.num_thread is None:
        found["embedder.num_thread"] = "the server's own choice; `rag-index tune` tries others"
    return found


def _why_workers(parallel: ParallelSettings, machine: Machine, needed: int) -> str:
    """The number, and the bound that makes it."""
    count, each = workers_for(parallel, needed, machine), memory_each(parallel, needed)
    without = workers_for(parallel.model_copy(update={"max_load": None}), needed, machine)
    processors = f"{machine.processors} processor{'s' if machine.processors > 1 else ''}"
    if count < without:
        why = f"max_load is {parallel.max_load:g}, and the load {machine.load:.2f}; else {without}"
    elif count < machine.processors - 1:
        why = f"memory has room for {count} of {_mb(each)}, less than {processors} less one"
    else:
        why = f"{processors} less one for the flow" if machine.processors > 1 else f"{processors}, and one at least"
    return f"{count}: {why}"


def _machine(machine: Machine, embedder: EmbedderSettings) -> Iterator[Fact]:
    each = worker_memory(embedder)
    quota = "no cgroup quota" if machine.quota is None else f"a cgroup quota of {machine.quota:g}"
    yield Fact("processors", machine.processors, f"{machine.processors} ({machine.affinity} by affinity, {quota})")
    if machine.memory is None:
        yield Fact("memory", None, "not known on this system, so that it bounds nothing")
    else:
        limit = "by a cgroup limit" if machine.memory_is_limited else "the machine's, no cgroup limit"
        count = machine.workers_in_memory(each)
        room = f"room for {count:,} workers beside {_mb(OWN_MEMORY)} for flow and server"
        yield Fact("memory", machine.memory, f"{_mb(machine.memory)} ({limit}): {room}")
    yield Fact("memory a worker", each, f"{_mb(each)} with {embedder.kind} ({_HOW_KNOWN[embedder.kind]})")
    if machine.load is None:
        yield Fact("load", None, "not known on this system")
        return
    busy = machine.load > machine.affinity / 2
    said = "other programs are busy: servers of one thread each lose least (`rag-index tune`)" if busy else "quiet"
    yield Fact(
        "load",
        round(machine.load, 2),
        f"{machine.load:.2f} in the last minute, {said}; workers are fewer where max_load says so",
    )


def _documents(settings: Settings) -> Iterator[Fact]:
    try:
        shown = live_aliases(settings.store)
        ledger = Ledger(settings.ledger_url)
    except RagIndexError as error:
        yield Fact("documents to do", None, f"not known: {error}")
        return
    try:
        for index in settings.indexes:
            yield _of_index(settings, index, ledger, shown.get(settings.alias(index.name), ""))
    finally:
        ledger.close()


def _of_index(settings: Settings, index: IndexSettings, ledger: Ledger, collection_name: str) -> Fact:
    name = f"documents of {index.name}"
    try:
        source = open_source(settings, index)
        try:
            count = source.count()
        finally:
            source.close()
        collection = ledger.collection(collection_name)
        indexed = ledger.totals(collection.id).documents if collection else 0
    except RagIndexError as error:
        return Fact(name, None, f"not known: {error}")
    measured = collection.chars_per_second if collection else None
    rate = first_rate(settings.embedder.kind, index, measured)
    shard = max(1, round(rate * settings.parallel.shard_seconds / MEAN_CHARS))
    how = "measured in the last run" if measured else "guessed until it is measured"
    new = f"at least {max(0, count - indexed):,} to do" if count != indexed else "only what changed to do"
    chars = f"{rate:,.0f} characters/s a worker ({how}), shards of about {shard:,} documents of {MEAN_CHARS:.0f}"
    return Fact(name, count, f"{count:,} in the source, {indexed:,} indexed, {new}; {chars}")


def _mb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
