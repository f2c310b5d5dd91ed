"""The catalog of the embedded store: collections with their dimension and metadata, and aliases.

The engine itself does not keep these. They are in one JSON file, which each change replaces as a whole.
"""

from __future__ import annotations

import copy
import json
import threading
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rag_index.database.files import replace_file
from rag_index.errors import StoreError, StoreMismatch
from rag_index.stores.edge.folder import folder_errors

if TYPE_CHECKING:
    from pathlib import Path

VERSION = 2
"""Version 2 has folders of other names than their collection. A catalog without any is written as version 1."""


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
    """The folder that a writer changes or, if it was killed, has changed: `folder` itself, or a copy of it."""
    unwritten: bool = False
    """Whether it was made and never written since: nobody need open its folder to know that it has no points."""

    @property
    def in_place(self) -> bool:
        """Whether the folder that readers would link is being written."""
        return self.writing == self.folder

    @property
    def newest(self) -> str:
        """The folder with all writes."""
        return self.writing or self.folder


@dataclass(frozen=True, slots=True)
class _State:
    collections: dict[str, CatalogEntry] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)


class Catalog:
    """The catalog file and its content. A change is on disk before a reader sees it; one that fails changes nothing.

    Safe to use from several threads. One process at a time may change it, and others may `refresh` theirs.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.RLock()
        self._stamp: tuple[int, ...] | None = None
        self._state = self._load()

    def refresh(self) -> None:
        """Read the file again if another process has replaced it."""
        with self._lock:
            if _stamp(self._file) != self._stamp:
                self._state = self._load()

    def entries(self) -> dict[str, CatalogEntry]:
        """Return a copy of all collections by name."""
        return copy.deepcopy(self._state.collections)

    def collections(self) -> dict[str, dict[str, Any]]:
        """Return a copy of the metadata of all collections by name."""
        return {name: entry.metadata for name, entry in self.entries().items()}

    def find(self, name: str) -> dict[str, Any] | None:
        """Return the metadata of a collection, None if there is none of this name."""
        entry = self._state.collections.get(name)
        return None if entry is None else copy.deepcopy(entry.metadata)

    def aliases(self) -> dict[str, str]:
        """Return a copy of the collection that each alias points at."""
        return dict(self._state.aliases)

    def resolve(self, name: str) -> str:
        """Return the collection that a name or an alias stands for. Raises StoreError if there is none."""
        found = self._state.aliases.get(name, name)
        if found not in self._state.collections:
            known = ", ".join(sorted({*self._state.collections, *self._state.aliases})) or "none"
            raise StoreError(f"no collection or alias {name!r} in the store (it has: {known}): run the index first")
        return found

    def entry(self, name: str) -> CatalogEntry:
        """Return the entry of a collection or alias."""
        with self._lock:
            return self._state.collections[self.resolve(name)]

    def __contains__(self, name: object) -> bool:
        return name in self._state.collections

    def add(
        self, name: str, dimension: int, metadata: dict[str, Any], *, sparse: bool = False, folder: str = ""
    ) -> None:
        """Add a collection, whose folder has its own name by default. Raises StoreMismatch if the name is an alias."""
        if name in self._state.aliases:
            target = self._state.aliases[name]
            raise StoreMismatch(f"{name} is an alias of {target}: a collection cannot have the same name")
        with self._lock:
            made = uuid.uuid4().hex[:8]
            entry = CatalogEntry(dimension, _without_none(metadata), sparse, folder or name, made, unwritten=True)
            self._replace_entry(name, entry)

    def set_folders(self, name: str, *, folder: str, writing: str) -> None:
        """Set the folder of a collection that readers link, and the one that is written; "" if none is."""
        with self._lock:
            entry = replace(self._state.collections[name], folder=folder, writing=writing, unwritten=False)
            self._replace_entry(name, entry)

    def merge_metadata(self, name: str, metadata: dict[str, Any]) -> None:
        """Merge into a collection's metadata, key by key; None removes a key."""
        with self._lock:
            name = self.resolve(name)
            entry = self._state.collections[name]
            merged = _without_none({**entry.metadata, **metadata})
            if merged != entry.metadata:
                self._replace_entry(name, replace(entry, metadata=merged))

    def remove(self, name: str) -> None:
        """Remove a collection and the aliases that point at it."""
        with self._lock:
            self._replace_state(
                _State(
                    {key: entry for key, entry in self._state.collections.items() if key != name},
                    {alias: target for alias, target in self._state.aliases.items() if target != name},
                )
            )

    def point_alias(self, alias: str, collection: str) -> None:
        """Point an alias at a collection."""
        if collection not in self._state.collections:
            raise StoreError(f"alias {alias} cannot point at {collection!r}: there is no such collection")
        if alias in self._state.collections:
            raise StoreMismatch(f"{alias} is a collection: an alias cannot have the same name; drop or rename it")
        with self._lock:
            if self._state.aliases.get(alias) != collection:
                self._replace_state(replace(self._state, aliases={**self._state.aliases, alias: collection}))

    def _replace_entry(self, name: str, entry: CatalogEntry) -> None:
        self._replace_state(replace(self._state, collections={**self._state.collections, name: entry}))

    def _replace_state(self, state: _State) -> None:
        collections = {name: _entry_document(name, entry) for name, entry in state.collections.items()}
        version = VERSION if any("folder" in one or "writing" in one for one in collections.values()) else 1
        document = {"version": version, "collections": collections, "aliases": state.aliases}
        try:
            content = json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False).encode()
            kept = json.loads(content)
        except (TypeError, ValueError) as exc:
            raise StoreError(f"collection metadata must be JSON: {exc}") from exc
        with folder_errors(self._file.parent):
            replace_file(self._file, content)
        self._state = _parse(kept)
        self._stamp = _stamp(self._file)

    def _load(self) -> _State:
        with folder_errors(self._file.parent):
            self._stamp = _stamp(self._file)  # before reading: if the file is replaced in between, it is read again
            try:
                content = self._file.read_bytes()
            except FileNotFoundError:
                return _State()
        try:
            document = json.loads(content)
            if document["version"] > VERSION:
                raise StoreError(
                    f"{self._file} was written by a newer rag-index (version {document['version']}): upgrade rag-index"
                )
            return _parse(document)
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise StoreError(
                f"{self._file} cannot be read ({exc!r}): restore it from a backup, "
                "or remove the store's folder and run `rag-index rebuild`"
            ) from exc


def _stamp(file: Path) -> tuple[int, ...] | None:
    """Return what differs whenever the file was replaced; None if there is none."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _entry_document(name: str, entry: CatalogEntry) -> dict[str, Any]:
    document = {"dimension": entry.dimension, "sparse": entry.sparse, "made": entry.made, "metadata": entry.metadata}
    folder = {"folder": entry.folder} if entry.folder != name else {}
    unwritten = {"unwritten": True} if entry.unwritten else {}
    return {**document, **folder, **({"writing": entry.writing} if entry.writing else {}), **unwritten}


def _parse(document: dict[str, Any]) -> _State:
    collections = {
        name: CatalogEntry(
            int(entry["dimension"]),
            dict(entry["metadata"]),
            bool(entry.get("sparse")),
            str(entry.get("folder", name)),
            str(entry.get("made", "")),
            str(entry.get("writing", "")),
            bool(entry.get("unwritten")),
        )
        for name, entry in document["collections"].items()
    }
    return _State(collections, dict(document["aliases"]))


def _without_none(metadata: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if value is not None}
