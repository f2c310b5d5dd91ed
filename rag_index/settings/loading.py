"""Loading of the settings from a TOML file and RAG_INDEX_* variables. Only this module reads the environment."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr, ValidationError

from rag_index.database.private import other_writer
from rag_index.errors import SettingsError
from rag_index.settings.environment import CONFIG_VARIABLE, TOP_KEYS, Overlay, tables_of
from rag_index.settings.index import IndexSettings
from rag_index.settings.project import FILE_NAME, SECTIONS, Settings, project_name
from rag_index.settings.validation import first_problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

    from rag_index.settings.environment import Place


def find_config(given: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """Return the settings file: the given one, that of RAG_INDEX_CONFIG, or rag-index.toml here or in a folder above.

    Raises:
        SettingsError: there is no such file, or another user may write the one that was found.
    """
    named = given or (os.environ if environ is None else environ).get(CONFIG_VARIABLE)
    if named:
        path = Path(named).expanduser().absolute()
        if not path.is_file():
            raise SettingsError(f"there is no settings file {named}; `rag-index init` writes one")
        return path
    current = Path.cwd()
    for folder in (current, *current.parents):
        if (folder / FILE_NAME).is_file():
            _check_writers(folder / FILE_NAME)
            return folder / FILE_NAME
    raise SettingsError(f"there is no {FILE_NAME} here or above; `rag-index init` writes one, --config names another")


def _check_writers(path: Path) -> None:
    """Check that nobody else decides what a file says that was found, and not named, or what is beside it.

    Settings say where keys are sent, and the ledger beside them says what is deleted.

    Raises:
        SettingsError: another user may write the file or its folder, or replace a folder above.
    """
    real = path.resolve()
    near = (path, path.parent, real)
    for one in dict.fromkeys((*near, *path.parents, *real.parents)):
        if writer := other_writer(one, sticky=one not in near):
            raise SettingsError(
                f"{path} was found, but not read, because {writer} may write {'it' if one == path else one}: "
                "if you mean these settings, name the file with --config or RAG_INDEX_CONFIG"
            )


def load_settings(given: str | Path | None = None, **overrides: dict[str, Any]) -> Settings:
    """Load the settings file. RAG_INDEX_* variables override it, and `overrides` (sections of keys) override both.

    Raises:
        SettingsError: the file is missing or not TOML, a key is unknown, or a value is invalid. The message is one
            line with the value and the remedy.
    """
    path = find_config(given)
    overlay = Overlay(os.environ, SECTIONS)
    values = overlay.merge(_read_file(path))
    for section, keys in overrides.items():
        values[section] = {**values.get(section, {}), **keys}
    try:
        settings = Settings(**values)
    except ValidationError as exc:
        raise SettingsError(first_problem(exc, Settings, values, overlay.origin, path.name)) from exc
    return _with_places(settings, path)


def _with_places(settings: Settings, path: Path) -> Settings:
    """Return the settings of the file `path` with absolute paths and with the name of the project."""
    folder = path.parent
    data = folder / settings.data.expanduser()
    store, ledger, embedder, run = settings.store, settings.ledger, settings.embedder, settings.run
    place = folder / store.path.expanduser() if "path" in store.model_fields_set else data / "qdrant"
    store = store.model_copy(update={"path": place})
    if "data" in settings.model_fields_set and "url" not in ledger.model_fields_set:
        ledger = ledger.model_copy(update={"url": SecretStr(f"sqlite:///{data / 'ledger.db'}")})
    if embedder.kind == "sentence-transformers" and (folder / embedder.model).is_dir():
        embedder = embedder.model_copy(update={"model": str(folder / embedder.model)})
    retrieve = settings.retrieve
    if retrieve.reranker and (folder / retrieve.reranker).is_dir():
        retrieve = retrieve.model_copy(update={"reranker": str(folder / retrieve.reranker)})
    parallel = settings.parallel.model_copy(
        update={
            name: folder / file.expanduser()
            for name in ("tls_ca_file", "tls_cert", "tls_key")
            if (file := getattr(settings.parallel, name)) is not None
        }
    )
    if run.metrics_file is not None:
        run = run.model_copy(update={"metrics_file": folder / run.metrics_file.expanduser()})
    serve = settings.serve
    if serve.tokens_file is not None:
        serve = serve.model_copy(update={"tokens_file": folder / serve.tokens_file.expanduser()})
    resolved = {
        "data": data, "store": store, "ledger": ledger, "parallel": parallel, "embedder": embedder, "run": run,
        "retrieve": retrieve, "serve": serve,
    }  # fmt: skip
    project = settings.project or project_name(folder.name)
    return settings.model_copy(update={"path": path, "project": project, **resolved})


def origins(path: Path) -> dict[Place, str]:
    """Return where each value that is not a default comes from: the name of the file or of a variable.

    Places are as in the file: ("project",), ("parallel", "workers"), ("indexes", 0, "table"). Raises SettingsError like
    `load_settings`.
    """
    overlay = Overlay(os.environ, SECTIONS)
    content = _read_file(path)
    merged = overlay.merge(content)
    result: dict[Place, str] = {(key,): path.name for key in TOP_KEYS.values() if key in content}
    for section, model in SECTIONS.items():
        result |= _places_in(path.name, (section,), model, content.get(section, {}))
    origin = overlay.origin.get(("indexes",), path.name)
    for number, table in enumerate(merged.get("indexes", [])):
        result |= _places_in(origin, ("indexes", number), IndexSettings, table)
    return result | overlay.origin


def _places_in(origin: str, place: Place, model: type[BaseModel], table: Mapping[str, Any]) -> dict[Place, str]:
    """Return this origin for the keys of a table and of the tables within it."""
    inner = {name: table[name] for name in tables_of(model) if isinstance(table.get(name), dict)}
    return {
        **{(*place, key): origin for key in table},
        **{(*place, name, key): origin for name, keys in inner.items() for key in keys},
    }


def run_settings(
    config: str | Path | None,
    *,
    workers: int | None = None,
    shard_documents: int | None = None,
    serial: bool | None = None,
    wait: float | None = None,
    host: str | None = None,
    port: int | None = None,
) -> Settings:
    """Load the settings of one run, with the overrides that are given. Raises SettingsError."""
    sections: dict[str, dict[str, Any]] = {
        "parallel": {"workers": workers, "shard_documents": shard_documents, "serial": serial or None},
        "run": {"wait": wait},
        "serve": {"host": host, "port": port},
    }
    given = {name: {k: v for k, v in keys.items() if v is not None} for name, keys in sections.items()}
    return load_settings(config, **{name: keys for name, keys in given.items() if keys})


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        if twice := re.match(r"Cannot declare \((.*?),?\) twice \((.*)\)", str(exc)):
            table = twice[1].replace("', '", ".").strip("'")
            raise SettingsError(f"{path} has a second [{table}] {twice[2]}: move its keys to the first one") from exc
        raise SettingsError(f"{path} is not TOML: {exc}") from exc
    except OSError as exc:
        raise SettingsError(f"{path} cannot be read: {exc.strerror}") from exc
    if "path" in content:  # a field of the model that a file may not set
        raise SettingsError(f"{path.name}: unknown key 'path'; the path of the store is a key of [store]")
    return content
