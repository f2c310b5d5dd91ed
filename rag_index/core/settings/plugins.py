"""Other packages: plug-ins, which add something by entry points, and packages that are in the
way."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rag_index.errors import SettingsError

SOURCES, EMBEDDERS = "rag_index.sources", "rag_index.embedders"
RERANKERS, CHUNKERS, FORMATS = "rag_index.rerankers", "rag_index.chunkers", "rag_index.formats"
"""The groups of entry points."""
BESIDE = ("flows", "tasks")
"""The packages of rag-index beside `rag_index`, whose names others have, too."""


def installed(group: str) -> list[str]:
    """Return the names of a group's entry points, sorted."""
    from importlib.metadata import entry_points  # few commands need it

    return sorted(entry_points(group=group).names)


def load_plugin(group: str, name: str, setting: str, own: tuple[str, ...] = ()) -> Any:
    """Return what the entry point `name` of a group names.

    `setting` says where the name is from, and `own` lists what rag-index has itself, both for
    messages. Raises SettingsError if there is no such entry point, or if it cannot be imported.
    """
    from importlib.metadata import entry_points

    if name not in (names := installed(group)):
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
    """Raise SettingsError if Python finds another package `flows` or `tasks` than that of
    rag-index."""
    home = Path(__file__).parents[3]
    for name in BESIDE:
        spec = find_spec(name)
        found = (
            [] if spec is None else [*(spec.submodule_search_locations or ()), spec.origin or ""]
        )
        if (home / name).resolve() not in [Path(one).resolve() for one in found]:
            where = f"the one in {found[0]}" if found else "none"
            raise SettingsError(
                f"of the packages named {name!r} Python finds {where}, not that of rag-index in"
                f" {home}: take the other one off PYTHONPATH, or install rag-index in an"
                " environment of its own, as pipx and uvx do"
            )
