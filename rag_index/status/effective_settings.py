"""Effective settings: each value, its origin, and for automatic ones the resulting value and the reason."""

from __future__ import annotations

import ast
import inspect
import textwrap
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, SecretStr

from rag_index.database.urls import database_url
from rag_index.errors import RagIndexError
from rag_index.indexing.sharding import MEAN_CHARS, first_rate
from rag_index.ledger import Ledger
from rag_index.machine.resources import (
    RESERVED_MEMORY,
    choose_worker_count,
    detect_machine,
    estimate_worker_memory,
    memory_per_worker,
)
from rag_index.settings import SECTIONS, IndexSettings, Settings, origins
from rag_index.settings.values import Section, keys_of, tables_of
from rag_index.sources import has_digests, open_source
from rag_index.stores import live_aliases

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rag_index.documents.batches import FailureKind
    from rag_index.ledger import Collection
    from rag_index.machine.resources import Machine
    from rag_index.settings import EmbedderSettings, ParallelSettings
    from rag_index.settings.environment import Place

COMMAND = "this command"
DEFAULT = "default"
MASK = "***"
COUNTED: tuple[FailureKind, ...] = ("skipped", "failed")
"""Kinds of listed documents that have no points."""
_MEMORY_BASIS = {
    "local": "measured, with the largest shards",
    "ollama": "measured; the model is in the server",
    "openai": "as measured with Ollama; the model is in the server",
    "sentence-transformers": "an estimate: torch and the weights; set workers if you know better",
}
_UNKNOWN_MEMORY = "a guess: set worker_memory if you know better"


@dataclass(frozen=True, slots=True)
class EffectiveValue:
    """One setting. `value` is redacted; `why` is given for automatic values and is empty for others."""

    key: str
    value: Any
    source: str
    """The settings file's name, an environment variable's, "this command" or "default"."""
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {"key": self.key, "value": self.value, "source": self.source} | ({"why": self.why} if self.why else {})


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact that automatic values are derived from: its name, its value, and a sentence about it."""

    name: str
    value: Any
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {"name": self.name, "value": self.value, "sentence": self.sentence}


def effective_settings(settings: Settings, given: Mapping[str, Any]) -> list[EffectiveValue]:
    """Return every setting; `given` maps keys ("parallel.workers") to the values that the command line sets.

    This connects to nothing.
    """
    places = origins(settings.path)
    why = _reasons(settings, detect_machine())
    project = places.get(("project",), DEFAULT)
    why_project = "the folder's name" if project == DEFAULT else ""
    values = [
        EffectiveValue("project", settings.project, project, why_project),
        EffectiveValue("data", _redact(settings, settings.data), places.get(("data",), DEFAULT)),
    ]
    for section in SECTIONS:
        model = getattr(settings, section)
        for key, name in _attributes(type(model)):
            dotted = f"{section}.{key}"
            if key in tables_of(type(model)):
                values += _table_values(settings, dotted, getattr(model, name), (section, key), places)
                continue
            source = COMMAND if given.get(dotted) is not None else places.get((section, key), DEFAULT)
            value = _redact(settings, getattr(model, name))
            values.append(EffectiveValue(dotted, value, source, why.get(dotted, "")))
    for number, index in enumerate(settings.indexes):
        dotted, place = f"indexes.{index.name}", ("indexes", number)
        for key, name in _attributes(IndexSettings):
            value = getattr(index, name)
            if key in tables_of(IndexSettings) and value is not None:
                values += _table_values(settings, f"{dotted}.{key}", value, (*place, key), places)
            else:
                source = places.get((*place, key), DEFAULT)
                values.append(EffectiveValue(f"{dotted}.{key}", _redact(settings, value), source))
    return values


def _table_values(
    settings: Settings, dotted: str, table: Any, place: Place, places: Mapping[Place, str]
) -> Iterator[EffectiveValue]:
    """Yield the values of a table within a section or an index."""
    for key, name in _attributes(type(table)):
        source = places.get((*place, key), DEFAULT)
        yield EffectiveValue(f"{dotted}.{key}", _redact(settings, getattr(table, name)), source)


def machine_facts(settings: Settings) -> list[Fact]:
    """Return the facts that automatic values are derived from: this machine, and the documents in each source.

    Each source is asked for a count. One that does not answer becomes a fact with the reason; nothing is raised.
    """
    return [*_machine(detect_machine(), settings.embedder), *_documents(settings)]


def _attributes(model: Any) -> Iterator[tuple[str, str]]:
    """Yield each key as the file spells it, with the name of the model's attribute."""
    names = {field.alias or name: name for name, field in model.model_fields.items()}
    return ((key, names[key]) for key in keys_of(model))


def _redact(settings: Settings, value: Any) -> Any:
    """Return a value for JSON: secrets masked, database URLs without password and options, paths as text."""
    if isinstance(value, SecretStr):
        try:
            url = database_url(value.get_secret_value(), settings.folder)
        except ValueError:
            return MASK
        return url.set(query={}).render_as_string(hide_password=True)
    if isinstance(value, list):
        return [entry.model_dump() if isinstance(entry, BaseModel) else entry for entry in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _reasons(settings: Settings, machine: Machine) -> dict[str, str]:
    """Return the reason for each automatic value, by its key."""
    parallel, embedder = settings.parallel, settings.embedder
    reasons: dict[str, str] = {}
    if parallel.serial:
        reasons["parallel.workers"] = "not used: serial is true"
    elif parallel.address:
        reasons["parallel.workers"] = f"not used: the cluster at {parallel.address} decides"
    elif parallel.workers == "auto":
        reasons["parallel.workers"] = _why_workers(parallel, machine, estimate_worker_memory(embedder))
    elif parallel.workers > machine.processors:
        reasons["parallel.workers"] = f"more than the {machine.processors} processors that this process may use"
    if parallel.memory == "auto":
        reasons["parallel.memory"] = (
            "the memory of this machine or of its cgroup" if machine.memory else "not known on this system"
        )
    if parallel.worker_memory == "auto":
        reasons["parallel.worker_memory"] = (
            f"estimated at {_mb(estimate_worker_memory(embedder))}; no worker is killed for using more"
        )
    if parallel.shard_documents == "auto":
        reasons["parallel.shard_documents"] = f"as many as take {parallel.shard_seconds:g} s at the measured rate"
    if embedder.kind == "ollama" and embedder.num_thread is None:
        reasons["embedder.num_thread"] = "the server chooses; `rag-index tune` tries other values"
    return reasons


def _why_workers(parallel: ParallelSettings, machine: Machine, needed: int) -> str:
    """Return the number of workers and the bound that decides it."""
    count, each = choose_worker_count(parallel, needed, machine), memory_per_worker(parallel, needed)
    without = choose_worker_count(parallel.model_copy(update={"max_load": None}), needed, machine)
    processors = f"{machine.processors} processor{'s' if machine.processors > 1 else ''}"
    if not count:
        why = f"memory has no room for a worker of {_mb(each)}, so the flow's process embeds"
    elif count < without:
        why = f"max_load is {parallel.max_load:g} and the load {machine.load:.2f}; without it {without}"
    elif count < machine.processors - 1:
        why = f"memory has room for {count} of {_mb(each)}, which is fewer than {processors} less one"
    else:
        why = (
            f"{processors} less one for the flow"
            if machine.processors > 1
            else f"{processors}, and there is always at least one"
        )
    return f"{count}: {why}"


def _machine(machine: Machine, embedder: EmbedderSettings) -> Iterator[Fact]:
    """Yield the facts about this machine."""
    each = estimate_worker_memory(embedder)
    quota = "no cgroup quota" if machine.quota is None else f"a cgroup quota of {machine.quota:g}"
    yield Fact("processors", machine.processors, f"{machine.processors} ({machine.affinity} by affinity, {quota})")
    if machine.memory is None:
        yield Fact("memory", None, "not known on this system, so it limits nothing")
    else:
        limit = "a cgroup limit" if machine.memory_is_limited else "the machine's, no cgroup limit"
        count = machine.workers_that_fit(each)
        room = f"room for {count:,} workers beside {_mb(RESERVED_MEMORY)} for the flow and the server"
        yield Fact("memory", machine.memory, f"{_mb(machine.memory)} ({limit}): {room}")
    yield Fact(
        "memory a worker",
        each,
        f"{_mb(each)} with {embedder.kind} ({_MEMORY_BASIS.get(embedder.kind, _UNKNOWN_MEMORY)})",
    )
    if machine.load is None:
        yield Fact("load", None, "not known on this system")
        return
    busy = machine.load > machine.affinity / 2
    advice = "quiet"
    if busy:
        advice = "other programs are busy: servers with one thread each lose the least (`rag-index tune`)"
    yield Fact(
        "load",
        round(machine.load, 2),
        f"{machine.load:.2f} in the last minute, {advice}; max_load lowers the number of workers",
    )


def _documents(settings: Settings) -> Iterator[Fact]:
    """Yield a fact about the documents of each index."""
    try:
        live = live_aliases(settings.store, settings.aliases)
        ledger = Ledger(settings.ledger_url)
    except RagIndexError as error:
        yield Fact("documents to do", None, f"not known: {error}")
        return
    with closing(ledger):
        for index in settings.indexes:
            yield _index_documents(settings, index, ledger, live.get(settings.alias(index.name), ""))


def _index_documents(settings: Settings, index: IndexSettings, ledger: Ledger, collection_name: str) -> Fact:
    name = f"documents of {index.name}"
    try:
        with closing(open_source(settings, index)) as source:
            count = source.count()
        collection = ledger.collection(collection_name)
        documents = _work(ledger, collection, count)
        if has_digests(settings, index):
            documents += _digests(ledger, collection)
    except RagIndexError as error:
        return Fact(name, None, f"not known: {error}")
    measured = collection.chars_per_second if collection else None
    rate = first_rate(settings.embedder.kind, index, measured)
    shard = max(1, round(rate * settings.parallel.shard_seconds / MEAN_CHARS))
    basis = "measured in the last run" if measured else "a guess until it is measured"
    chars = f"{rate:,.0f} characters/s per worker ({basis}), shards of about {shard:,} documents of {MEAN_CHARS:.0f}"
    return Fact(name, count, f"{documents}; {chars}")


def _digests(ledger: Ledger, collection: Collection | None) -> str:
    """Return the end of a sentence about the digests by which the next run finds what changed."""
    buckets = 0 if collection is None else ledger.count_buckets(collection.id)
    if not buckets:
        return "; no digests yet, so the next run reads everything"
    return f"; digests of {buckets:,} buckets of the source, so a run reads those that changed"


def _work(ledger: Ledger, collection: Collection | None, count: int) -> str:
    """Return how many of the source's `count` documents are indexed, empty, listed as failed, and still to do."""
    known = {"indexed": 0}
    if collection is not None:
        cid = collection.id
        known = {"indexed": ledger.totals(cid).documents, "empty": ledger.count_empty(cid)}
        known |= {kind: ledger.count_failures(cid, kind) for kind in COUNTED}
    left = count - sum(known.values())
    parts = [f"{number:,} {what}" for what, number in known.items() if number or what == "indexed"]
    work = f"at least {left:,} to do" if left > 0 else "only changes to do"
    return ", ".join([f"{count:,} in the source", *parts, work])


def _mb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def settings_schema() -> dict[str, Any]:
    """Return the JSON schema (2020-12) of the settings file; the docstring of each key is its description."""
    schema = Settings.model_json_schema()
    del schema["properties"]["path"]
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    _describe(schema, Settings)
    for model in _subclasses(Section):
        if model.__name__ in schema["$defs"]:
            _describe(schema["$defs"][model.__name__], model)
    return schema


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Give the properties of a model's schema the docstrings that stand below its attributes."""
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    below = zip(body.body, body.body[1:]) if isinstance(body, ast.ClassDef) else ()  # noqa: B905
    for attribute, text in below:
        match attribute, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(description))):
                key = model.model_fields[name].alias or name
                if key in schema["properties"]:
                    schema["properties"][key]["description"] = " ".join(description.split())


def _subclasses(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for one in model.__subclasses__():
        yield one
        yield from _subclasses(one)
