"""Plug-ins: what other packages add by entry points, each named in the settings."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from rag_index.errors import SettingsError

SOURCES, EMBEDDERS = "rag_index.sources", "rag_index.embedders"
RERANKERS, CHUNKERS = "rag_index.rerankers", "rag_index.chunkers"
"""The groups of entry points."""


def installed(group: str) -> list[str]:
    """Return the names of a group's entry points, sorted."""
    return sorted(entry_points(group=group).names)


def load_plugin(group: str, name: str, setting: str, own: tuple[str, ...] = ()) -> Any:
    """Return what the entry point `name` of a group names.

    `setting` says where the name is from, and `own` lists what rag-index has itself, both for messages. Raises
    SettingsError if there is no such entry point, or if it cannot be imported.
    """
    if name not in (names := installed(group)):
        known = ", ".join((*own, *names)) or "none"
        raise SettingsError(
            f"{setting}: there is no {name!r} (there are: {known}); correct it, or install the package that has an "
            f"entry point {name!r} in the group {group}"
        )
    try:
        return entry_points(group=group)[name].load()
    except (ImportError, AttributeError) as exc:
        raise SettingsError(f"{setting}: {name!r} cannot be loaded: {exc}; reinstall its package") from exc
