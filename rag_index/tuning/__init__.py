"""The benchmark, and the search for the fastest settings, which are written into the settings file.

A change of a single key keeps everything else of the file as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from rag_index.database.files import replacement
from rag_index.errors import SettingsError
from rag_index.settings import load_settings, origins


def write_keys(path: Path, changed: Mapping[tuple[str, str], Any]) -> None:
    """Set each (table, key) to its value, or remove the key if the value is None. Keep comments and order.

    The new file is checked by loading it, then replaces the old one as a whole, with the same permissions.

    Raises:
        SettingsError: the file cannot be read or written, or would no longer load; it is unchanged then.
    """
    try:
        document = tomlkit.parse(path.read_text(encoding="utf-8-sig"))
        for (table, key), value in changed.items():
            if table not in document and value is not None:
                if document.body:
                    document.add(tomlkit.nl())
                document.add(table, tomlkit.table())
            section: Any = document.get(table, {})
            if value is None:
                section.pop(key, None)
            else:
                section[key] = value
        with replacement(path.resolve()) as temporary:
            temporary.write_text(tomlkit.dumps(document), encoding="utf-8")
            temporary.chmod(path.stat().st_mode & 0o7777)
            load_settings(temporary)
    except TOMLKitError as exc:
        raise SettingsError(f"{path} is not TOML: {exc}") from exc
    except OSError as exc:
        raise SettingsError(f"{path} cannot be written: {exc.strerror}") from exc


def overriding_variables(path: Path, keys: Iterable[tuple[str, str]]) -> list[str]:
    """Return the environment variables that override these (table, key) of the settings file."""
    places = origins(path)
    found = (places.get(key, path.name) for key in keys)
    return [name for name in found if name != path.name]
