"""Changing keys of a settings file, with everything else in it as it was."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from rag_index.errors import SettingsError
from rag_index.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["write_keys"]


def write_keys(path: Path, changed: Mapping[tuple[str, str], Any]) -> None:
    """Set (table, key) to a value, None takes the key away; comments, order and the rest of the file are kept.

    The file is replaced as a whole, with its permissions, once it was seen that it loads.

    Raises:
        SettingsError: it cannot be read or written, or would not load any more; it is as it was then.
    """
    try:
        document = tomlkit.parse(path.read_text(encoding="utf-8-sig"))
        for (table, key), value in changed.items():
            _set(document, table, key, value)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.toml")
        try:
            temporary.write_text(tomlkit.dumps(document), encoding="utf-8")
            temporary.chmod(path.stat().st_mode & 0o7777)
            load_settings(temporary)
            temporary.replace(path.resolve())
        finally:
            temporary.unlink(missing_ok=True)
    except TOMLKitError as exc:
        raise SettingsError(f"{path} is not TOML: {exc}") from exc
    except OSError as exc:
        raise SettingsError(f"{path} cannot be written: {exc.strerror}") from exc


def _set(document: tomlkit.TOMLDocument, table: str, key: str, value: Any) -> None:
    if table not in document:
        if value is None:
            return
        if document.body:
            document.add(tomlkit.nl())
        document.add(table, tomlkit.table())
    section: Any = document[table]
    if value is None:
        section.pop(key, None)
    else:
        section[key] = value
