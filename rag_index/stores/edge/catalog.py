"""The catalog of the embedded store: collections with their dimension and metadata, and aliases.

The engine itself does not keep these. They are in one JSON file, which each change replaces as a whole.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rag_index.database.files import replace_file
from rag_index.errors import StoreError, StoreMismatch
from rag_index.stores.edge.folder import folder_errors

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Catalog", "CatalogEntry"]

VERSION = 1


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A collection: the dimension of its vectors, its metadata, and whether its points have sparse vectors too."""

    dimension: int
    metadata: dict[str, Any]
    sparse: bool = False


@dataclass(frozen=True, slots=True)
class _State:
    collections: dict[str, CatalogEntry] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)


class Catalog:
    """The catalog file and its content. A change is on disk before a reader sees it; one that fails changes nothing.

    Not thread-safe: the store calls it under its own lock.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._state = self._load()

    def collections(self) -> dict[str, CatalogEntry]:
        """Return a copy of all collections by name."""
        return copy.deepcopy(self._state.collections)

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
        return self._state.collections[self.resolve(name)]

    def __contains__(self, name: object) -> bool:
        return name in self._state.collections

    def add(self, name: str, dimension: int, metadata: dict[str, Any], *, sparse: bool = False) -> None:
        """Add a collection. Raises StoreMismatch if the name is an alias."""
        if name in self._state.aliases:
            target = self._state.aliases[name]
            raise StoreMismatch(f"{name} is an alias of {target}: a collection cannot have the same name")
        entry = CatalogEntry(dimension, _without_none(metadata), sparse)
        self._replace_state(replace(self._state, collections={**self._state.collections, name: entry}))

    def merge_metadata(self, name: str, metadata: dict[str, Any]) -> None:
        """Merge into a collection's metadata, key by key; None removes a key."""
        name = self.resolve(name)
        entry = self._state.collections[name]
        merged = _without_none({**entry.metadata, **metadata})
        if merged != entry.metadata:
            collections = {**self._state.collections, name: replace(entry, metadata=merged)}
            self._replace_state(replace(self._state, collections=collections))

    def remove(self, name: str) -> None:
        """Remove a collection and the aliases that point at it."""
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
        if self._state.aliases.get(alias) != collection:
            self._replace_state(replace(self._state, aliases={**self._state.aliases, alias: collection}))

    def _replace_state(self, state: _State) -> None:
        document = {
            "version": VERSION,
            "collections": {
                name: {"dimension": entry.dimension, "sparse": entry.sparse, "metadata": entry.metadata}
                for name, entry in state.collections.items()
            },
            "aliases": state.aliases,
        }
        try:
            content = json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False).encode()
            kept = json.loads(content)
        except (TypeError, ValueError) as exc:
            raise StoreError(f"collection metadata must be JSON: {exc}") from exc
        with folder_errors(self._file.parent):
            replace_file(self._file, content)
        self._state = _parse(kept)

    def _load(self) -> _State:
        with folder_errors(self._file.parent):
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


def _parse(document: dict[str, Any]) -> _State:
    collections = {
        name: CatalogEntry(int(entry["dimension"]), dict(entry["metadata"]), bool(entry.get("sparse")))
        for name, entry in document["collections"].items()
    }
    return _State(collections, dict(document["aliases"]))


def _without_none(metadata: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if value is not None}
