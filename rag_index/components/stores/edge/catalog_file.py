"""The catalog of the embedded store: collections with their dimension and metadata, and aliases. The engine itself does
not keep these. They are in one JSON file, which each change replaces as a whole."""

from __future__ import annotations

import copy
import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_index.components.stores.edge.folder import folder_errors, locked, read_mark
from rag_index.core.database.files import file_stamp, replace_file
from rag_index.errors import StoreError, StoreMismatch

if TYPE_CHECKING:
    from rag_index.core.documents.batches import CommitMark

CATALOG_VERSION = 2


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A collection: the dimension of its vectors, its metadata, and whether its points have sparse vectors too."""

    dimension: int
    metadata: dict[str, Any]
    sparse: bool = False
    folder: str = ""
    """The folder that readers link."""
    made: str = ""
    """What tells a collection from an earlier one of the same name."""
    writing: str = ""
    """The copy of the folder that a writer changes or, if it was killed, has changed."""

    @property
    def newest(self) -> str:
        """The folder with all writes."""
        return self.writing or self.folder


class Catalog:
    """The catalog of a store, as `StoreNames`. A change is on disk before a reader sees it; one that fails is none.
    What other processes changed is read by `refresh`, and before each change. Safe to use from several threads."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._file = store / "catalog.json"
        self._lock = threading.RLock()
        self._state: tuple[dict[str, CatalogEntry], dict[str, str]] = {}, {}
        """Collections and aliases, replaced together."""
        self._load()

    def refresh(self) -> None:
        """Read the file again if another process has replaced it."""
        with self._lock:
            if file_stamp(self._file) != self._stamp:
                self._load()

    def entries(self) -> dict[str, CatalogEntry]:
        """Return all collections by name."""
        return dict(self._state[0])

    def names(self) -> set[str]:
        return set(self._state[0])

    def collections(self) -> dict[str, dict[str, Any]]:
        return {name: copy.deepcopy(entry.metadata) for name, entry in self._state[0].items()}

    def find(self, name: str) -> dict[str, Any] | None:
        return self.collections().get(name)

    def commit_mark(self, name: str) -> CommitMark:
        with folder_errors(self._store):
            return read_mark(self.folder(self.entry(name).newest))

    def aliases(self) -> dict[str, str]:
        return dict(self._state[1])

    def resolve(self, name: str) -> str:
        """Return the collection that a name or an alias stands for. Raises StoreError if there is none."""
        entries, aliases = self._state
        found = aliases.get(name, name)
        if found not in entries:
            known = ", ".join(sorted({*entries, *aliases})) or "none"
            raise StoreError(f"no collection or alias {name!r} in the store (it has: {known}): run the index first")
        return found

    def entry(self, name: str) -> CatalogEntry:
        """Return the entry of a collection or alias."""
        with self._lock:
            return self._state[0][self.resolve(name)]

    def folder(self, name: str) -> Path:
        """Return the path of a collection's folder of this name."""
        return self._store / "collections" / name

    def add(self, name: str, dimension: int, metadata: dict[str, Any], *, sparse: bool = False) -> None:
        """Add a collection, whose folder has its own name. Raises StoreMismatch if the name is an alias."""
        with self._changing() as (entries, aliases):
            if name in aliases:
                raise StoreMismatch(f"{name} is an alias of {aliases[name]}: a collection cannot have the same name")
            entries[name] = CatalogEntry(dimension, _without_none(metadata), sparse, name, made=uuid.uuid4().hex[:8])

    def set_folders(self, name: str, *, folder: str, writing: str) -> None:
        """Set the folder of a collection that readers link, and its copy that is written; "" if there is none."""
        with self._changing() as (entries, _):
            entries[name] = replace(entries[name], folder=folder, writing=writing)

    def merge_metadata(self, name: str, metadata: dict[str, Any]) -> None:
        with self._changing() as (entries, _):
            name = self.resolve(name)
            entries[name] = replace(entries[name], metadata=_without_none({**entries[name].metadata, **metadata}))

    def remove(self, name: str) -> None:
        """Remove a collection and the aliases that point at it."""
        with self._changing() as (entries, aliases):
            del entries[name]
            for alias in [alias for alias, target in aliases.items() if target == name]:
                del aliases[alias]

    def point_alias(self, alias: str, collection: str) -> None:
        with self._changing() as (entries, aliases):
            if collection not in entries:
                raise StoreError(f"alias {alias} cannot point at {collection!r}: there is no such collection")
            if alias in entries:
                raise StoreMismatch(f"{alias} is a collection: an alias cannot have the same name; drop or rename it")
            aliases[alias] = collection

    @contextmanager
    def _changing(self) -> Iterator[tuple[dict[str, CatalogEntry], dict[str, str]]]:
        """Give the block what is on disk, and write what it has changed. No other process may change it meanwhile."""
        with self._lock, locked(self._store):
            self.refresh()
            entries, aliases = dict(self._state[0]), dict(self._state[1])
            yield entries, aliases
            if (entries, aliases) == self._state:
                return
            collections = {name: asdict(entry) for name, entry in entries.items()}
            document = {"version": CATALOG_VERSION, "collections": collections, "aliases": aliases}
            try:
                content = json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False).encode()
            except (TypeError, ValueError) as exc:
                raise StoreError(f"collection metadata must be JSON: {exc}") from exc
            with folder_errors(self._store):
                replace_file(self._file, content)
            self._load()

    def _load(self) -> None:
        with folder_errors(self._store):
            self._stamp = file_stamp(self._file)  # before reading: if the file is replaced in between, it is read again
            if self._stamp is None:
                self._state = {}, {}
                return
            content = self._file.read_bytes()
        try:
            document = json.loads(content)
            if document["version"] > CATALOG_VERSION:
                raise StoreError(
                    f"{self._file} was written by a newer rag-index (version {document['version']}): upgrade rag-index"
                )
            entries = {name: CatalogEntry(**found) for name, found in document["collections"].items()}
            self._state = entries, dict(document["aliases"])
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise StoreError(
                f"{self._file} cannot be read ({exc!r}): restore it from a backup, "
                "or remove the store's folder and run `rag-index rebuild`"
            ) from exc


def _without_none(metadata: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if value is not None}
