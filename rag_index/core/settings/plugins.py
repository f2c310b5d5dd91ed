"""Plug-ins, which entry points of other packages add, and a check for packages that hide ours."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rag_index.errors import SettingsError

SOURCES, EMBEDDERS = "rag_index.sources", "rag_index.embedders"
RERANKERS, CHUNKERS, FORMATS = "rag_index.rerankers", "rag_index.chunkers", "rag_index.formats"
"""The groups of entry points."""
BESIDE = ("flows", "tasks")
"""The packages of rag-index besides `rag_index`. Their names are common, so another package may
hide them."""


def installed(group: str) -> list[str]:
    """Return the names of a group's entry points, sorted."""
    from importlib.metadata import entry_points  # few commands need it

    return sorted(entry_points(group=group).names)


def load_plugin(group: str, name: str, setting: str, own: tuple[str, ...] = ()) -> Any:
    """Return the object of the entry point `name` of a group.

    Args:
        group: The group of entry points, such as `EMBEDDERS`.
        name: The name of the entry point.
        setting: Where the name was given, for messages.
        own: The names of what rag-index itself has, for messages.

    Raises:
        SettingsError: There is no such entry point, or it cannot be imported.
    """
    from importlib.metadata import entry_points

    names = installed(group)
    if name not in names:
        known = ", ".join((*own, *names)) or "none"
        raise SettingsError(
            f"{setting}: there is no {name!r} (there are: {known}); correct it, or install the"
            f" package that has an entry point {name!r} in the group {group}"
        )
    try:
        return entry_points(group=group)[name].load()
    except (ImportError, AttributeError) as exc:
        raise SettingsError(
            f"{setting}: {name!r} cannot be loaded: {exc}; reinstall its package"
        ) from exc


def check_own_packages() -> None:
    """Raise SettingsError if Python finds another package `flows` or `tasks` than ours."""
    home = Path(__file__).parents[3]
    for name in BESIDE:
        spec = find_spec(name)
        found: list[str] = []
        if spec is not None:
            # A package with an __init__.py has a file too, and one without has only folders.
            found = [*(spec.submodule_search_locations or ()), spec.origin or ""]
        if (home / name).resolve() in [Path(place).resolve() for place in found]:
            continue
        where = f"the one in {found[0]}" if found else "none"
        raise SettingsError(
            f"of the packages named {name!r} Python finds {where}, not that of rag-index in"
            f" {home}: take the other one off PYTHONPATH, or install rag-index in an"
            " environment of its own, as pipx and uvx do"
        )
