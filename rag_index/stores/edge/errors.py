"""What the engine's bare exceptions mean, by their words."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rag_index.errors import RagIndexError, StoreBusy, StoreError
from rag_index.stores.edge.folder import disk_full

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def engine_errors(name: str, folder: Path) -> Iterator[None]:
    """Turn the engine's bare exceptions and panics into errors of ours."""
    try:
        yield
    except RagIndexError:
        raise
    except BaseException as exc:
        if not isinstance(exc, Exception) and type(exc).__name__ != "PanicException":
            raise
        raise store_error(str(exc), name, folder) from exc


def store_error(message: str, name: str, folder: Path) -> StoreError:
    """Return our error for the engine's message on collection `name`, whose shard is in `folder`."""
    if "WouldBlock" in message:
        return StoreBusy(f"collection {name} at {folder} is open in another process: wait for it")
    if disk_full(message):
        return StoreError(f"no space left for collection {name} at {folder}: free some, then run again")
    if re.search("permission denied|read-only file system", message, re.IGNORECASE):
        return StoreError(f"cannot write to {folder} ({message}): make it writable for this user")
    if "does not exist" in message:
        return StoreError(f"the folder of collection {name}, {folder}, is gone: run `rag-index rebuild`")
    return StoreError(f"the embedded Qdrant failed on {name} at {folder}: {message}")
