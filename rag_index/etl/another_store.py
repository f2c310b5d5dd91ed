"""`rebuild --to`: which store it names, and what its user has to do when the indexes are there.

    rebuild in the other store (a run with an `Origin`) -> the settings name it -> the next run
    there

The run is that of any rebuild. It writes to the other store alone, and reads what is live in the
store of the settings: vectors to reuse, what the delete guard and the gate compare with, citation
seal, calibration, and settings made by hand (`etl.collection`, `etl.publish`, `etl.window`).

The ledger has rows for the collections of both stores. Those that are not in the store of the
settings have the flag `elsewhere`, and no run, doctor or rollback takes them for lost or for its
own. The first run with changed settings finds the flag at its live collection, by name and id, and
exchanges the flags (`collection.follow_store`). So runs in the old store may go on until then, and
also afterwards, if the settings go back.

What must hold, and a test that fails if it does not:

- Nothing is written to the store of the settings.
    `test_the_old_store_is_only_read`
- A row of another store is left alone by each run and repair in this one.
    `test_runs_in_the_old_store_go_on_until_the_settings_change`
- A collection is known by its id, never by its name alone.
    `test_what_another_ledger_made_in_the_target_is_refused_and_kept`
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from rag_index.components.stores import location, open_names
from rag_index.core.settings import StoreSettings
from rag_index.core.settings.project import origins
from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.core.settings import Settings

API_KEY = "RAG_INDEX_STORE__API_KEY"


def parse_target(settings: Settings, to: str, api_key: str | None = None) -> StoreSettings:
    """Return the settings of the store that `to` names: the URL of a server, or a folder.

    Everything else is as in the settings, since only that one line is changed later.

    Raises:
        SettingsError: `to` is neither, or it is the store of the settings.
    """
    values = settings.store.model_dump(exclude={"url", "path", "api_key"})
    if "://" in to:
        values |= {"url": to, "api_key": api_key}
    else:
        values["path"] = _parse_folder(to)
        if api_key is not None:
            raise SettingsError(
                f"--to {to} is a folder, which has no API key: leave out --api-key-env"
            )
    try:
        target = StoreSettings(**values)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        # The message must not show the password of http://user:password@host.
        shown = re.sub(r"//[^/]*@", "//…@", to)
        raise SettingsError(f"--to {shown} {reason}, or name a folder") from error
    if location(target) == location(settings.store):
        raise SettingsError(
            f"--to {to}: that is the store of the settings; name another one, or leave out --to"
        )
    return target


def _parse_folder(to: str) -> Path:
    # "localhost:6333" is a server without its scheme.
    if re.fullmatch(r"[\w.-]+:\d+/?", to):
        raise SettingsError(
            f"--to {to} has no scheme: write http://{to} for a server, or ./{to} for a folder"
        )
    if not to.strip():
        raise SettingsError("--to is empty: name a server (http://host:6333) or a folder")
    return Path(to).expanduser().absolute()


def settings_line(target: StoreSettings) -> str:
    """Return the line of `[store]` that names a store."""
    if target.url is not None:
        return f'url = "{target.url}"'
    return f"path = {json.dumps(str(target.path), ensure_ascii=False)}"


def missing_indexes(settings: Settings, target: StoreSettings) -> list[str]:
    """Return the indexes that are live in the store of the settings and not in the other one."""
    with open_names(settings.store, brief=True) as own, open_names(target, brief=True) as other:
        live, published = own.aliases(), other.aliases()
    missing: list[str] = []
    for index in settings.indexes:
        alias = settings.alias(index.name)
        if alias in live and alias not in published:
            missing.append(index.name)
    return missing


def next_steps(
    settings: Settings,
    target: StoreSettings,
    missing: Sequence[str],
    *,
    to: str,
    api_key_env: str | None,
) -> list[str]:
    """Return what is left to do once indexes are in the other store, as lines for a person."""
    lines: list[str] = []
    if missing:
        key = f" --api-key-env {api_key_env}" if api_key_env is not None else ""
        rebuild = f"`rag-index rebuild {' '.join(missing)} --to {to}{key}`"
        lines.append(f"Not in the new store yet: {', '.join(missing)}. First run {rebuild}.")
    lines.append(_change(settings, target))
    if api_key_env is not None:
        lines.append(
            f"Its API key belongs into {API_KEY}, for each program that reads these settings."
        )
    lines.append(
        f"Until then runs and searches use {location(settings.store)}. Then `rag-index index-all`"
        " indexes what has changed since, and `rag-index doctor` looks at the result."
    )
    return lines


def _change(settings: Settings, target: StoreSettings) -> str:
    """Return the sentence about the line to change, in the settings file or the environment."""
    line = settings_line(target)
    known = origins(settings.path)
    key = "url" if target.url is not None else "path"
    for place in ("url", "path"):
        variable = known.get(("store", place), "")
        # RAG_INDEX_STORE__URL=http://old:6333 takes precedence over the file.
        if variable.startswith("RAG_INDEX_"):
            value = target.url or target.path
            unset = "" if place == key else f" and unset {variable}"
            return (
                f"Now set RAG_INDEX_STORE__{key.upper()} to {value}{unset}, since {variable} is"
                " set."
            )
    remove = " and remove its url" if target.url is None and settings.store.url is not None else ""
    return f"Now change {settings.path}, section [store]: {line}{remove}"
