"""Adapted tables: token vectors of the local embedder that `rag-index adapt` trained on a project's documents.

A table is a file in the folder `tables` of the project's data. Its name is that of the model, and has a hash of its
content; a table never changes. The file `newest` names the one that the next rebuild uses. A collection keeps the table
that made it, for its runs and its searches, so a rollback takes the table back, too.
"""

from __future__ import annotations

import io
import re
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_index.database.files import private_folder, replace_file
from rag_index.errors import EmbedderError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from rag_index.settings import EmbedderSettings

PLAIN = "wordllama"
"""The model as it comes, with the table of its package."""
_ADAPTED = re.compile(rf"{PLAIN}-adapted-[0-9a-f]{{16}}")
_NEWEST = "newest"
REMEDY = (
    "put the file back from a backup, or make another with `rag-index adapt` (`rag-index adapt --undo` goes back to "
    f"{PLAIN} as it comes) and rebuild the index"
)


def settings_for(settings: EmbedderSettings, made_by: str | None) -> EmbedderSettings:
    """Return the settings of the embedder for a collection.

    `made_by` describes the embedder that made it, as the ledger keeps it (`Collection.embedder`); None stands for a
    collection that is about to be made, which gets the newest table.
    """
    if settings.kind != "local":
        return settings
    made = _ADAPTED.search(made_by) if made_by is not None else _newest(settings.tables)
    return settings.model_copy(update={"model": made[0] if made else PLAIN})


def write_table(folder: Path, table: NDArray[np.float32]) -> str:
    """Write a table, make it the newest one, and return the name of the model. Raises EmbedderError."""
    content = io.BytesIO()
    np.save(content, np.ascontiguousarray(table))
    model = f"{PLAIN}-adapted-{_hash(content.getbuffer())}"
    try:
        private_folder(folder)
        replace_file(folder / f"{model}.npy", content.getvalue())
        replace_file(folder / _NEWEST, model.encode())
    except OSError as exc:
        raise EmbedderError(f"{folder} cannot be written: {exc.strerror}; make room there, and try again") from exc
    return model


def read_table(folder: Path, model: str) -> NDArray[np.float32]:
    """Return a table, shape (tokens, 256), as a read-only map of its file, which all processes share.

    Raises EmbedderError if the file is missing or damaged.
    """
    path = folder / f"{model}.npy"
    try:
        if not model.endswith(_hash(np.memmap(path, mode="r"))):
            raise EmbedderError(f"the adapted table {path} is damaged: {REMEDY}")
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except FileNotFoundError as exc:
        raise EmbedderError(f"the adapted table {path} is missing: {REMEDY}") from exc
    except (OSError, ValueError) as exc:
        raise EmbedderError(f"the adapted table {path} cannot be read ({exc}): {REMEDY}") from exc


def forget_newest(folder: Path) -> bool:
    """Let the next rebuild use the model as it comes. Return whether it would have used a table."""
    known = _newest(folder) is not None
    (folder / _NEWEST).unlink(missing_ok=True)
    return known


def remove_unused(folder: Path, made_by: Iterable[str]) -> None:
    """Delete the tables that neither the next rebuild nor any collection uses; `made_by` describes their embedders."""
    newest = _newest(folder)
    used = {found[0] for found in map(_ADAPTED.search, made_by) if found} | ({newest[0]} if newest else set())
    for path in folder.glob(f"{PLAIN}-adapted-*.npy"):
        if path.stem not in used:
            path.unlink(missing_ok=True)


def _newest(folder: Path) -> re.Match[str] | None:
    with suppress(OSError, UnicodeDecodeError):
        return _ADAPTED.fullmatch((folder / _NEWEST).read_text(encoding="utf-8"))
    return None


def _hash(content: Any) -> str:
    return blake2b(content, digest_size=8).hexdigest()
