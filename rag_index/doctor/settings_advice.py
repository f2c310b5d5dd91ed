"""Advice about settings that are valid but likely to hurt, as far as this machine can tell."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from rag_index.database.urls import is_file
from rag_index.doctor.findings import Advice
from rag_index.embedders.bm25 import bm25_model
from rag_index.errors import RagIndexError, SettingsError
from rag_index.evaluation.gate import WAYS, check_gate
from rag_index.evaluation.significance import LEVEL, needed_queries
from rag_index.machine.resources import cpu_count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rag_index.settings import IndexSettings, Settings

NETWORK = ("nfs", "cifs", "smb", "9p", "ceph", "afs", "fuse.sshfs", "glusterfs", "lustre", "vboxsf", "fuse.rclone")
CHARS_PER_TOKEN = 4
"""That of English prose. Other scripts have fewer characters per token, so their chunks are too long even sooner."""
MANY_FAILED = 0.5


def settings_advice(settings: Settings, indexes: Sequence[IndexSettings]) -> Iterator[Advice]:
    """Yield advice that names the key to change."""
    embedder, run, store = settings.embedder, settings.run, settings.store
    local = embedder.local_hosts
    if embedder.kind == "ollama" and len(local) > 1 and embedder.num_thread is None:
        yield Advice(
            None,
            f"{len(local)} Ollama servers on this machine choose their own number of threads and slow each other down; "
            f"set [embedder] num_thread, for example to {max(1, cpu_count() // len(local))}",
        )
    workers = settings.parallel.workers
    if embedder.kind == "local" and isinstance(workers, int) and workers > cpu_count():
        yield Advice(None, f"[parallel] workers = {workers}, but this machine has {cpu_count()} processors; set fewer")
    if run.tolerate_failed > MANY_FAILED:
        message = f"tolerate_failed = {run.tolerate_failed:g}: a run counts as completed even if most documents fail"
        yield Advice(None, message)
    if run.delete_guard >= 1:
        yield Advice(None, "delete_guard = 1: if a table is emptied by mistake, its index is emptied too")
    if store.keep_previous == 0:
        yield Advice(None, "keep_previous = 0: after a rebuild there is nothing to roll back to")
    yield from _digests(settings, indexes)
    yield from _small_gates(settings, indexes)
    yield from _network_filesystems(settings)
    yield from _long_chunks(settings, indexes)


def _digests(settings: Settings, indexes: Sequence[IndexSettings]) -> Iterator[Advice]:
    """Yield advice about indexes that digests of the source's rows do not serve, or that need nothing else."""
    if not settings.source.digest:
        return
    for index in indexes:
        if index.access_query is not None:
            message = "access is a query, so [source] digest has no effect here: the rights are not in the rows"
            yield Advice(index.name, message)
        elif index.changed_since is not None:
            message = "[source] digest finds every change, so runs do not use changed_since; a watch that polls does"
            yield Advice(index.name, message)


def _small_gates(settings: Settings, indexes: Sequence[IndexSettings]) -> Iterator[Advice]:
    """Yield advice about gates with too few queries to tell the loss that they should stop from chance."""
    for index in indexes:
        try:
            queries = len(check_gate(settings, index))
        except SettingsError:
            continue  # a finding
        if index.gate is None:
            continue
        level = LEVEL / (len(WAYS) if bm25_model(index) else 1)
        needed = needed_queries(2 * index.gate.max_loss, level=level)
        if needed is not None and queries < needed:
            golden = "golden query" if queries == 1 else "golden queries"
            yield Advice(
                index.name,
                f"{queries:,} {golden} for the gate: stopping a loss of twice max_loss ({2 * index.gate.max_loss:g}) 9 "
                f"times in 10 takes {needed:,}, and more where other answers change; add queries",
            )


def _network_filesystems(settings: Settings) -> Iterator[Advice]:
    """Yield advice about a store or a ledger whose filesystem does not lock reliably."""
    paths = {"[store] path": settings.store.path if settings.store.url is None else None}
    if is_file(settings.ledger_url):
        paths["[ledger] url"] = Path(str(settings.ledger_url.database))
    for key, path in paths.items():
        kind = _filesystem(path) if path is not None else ""
        if kind.startswith(NETWORK):
            yield Advice(None, f"{key}: {path} is on a network filesystem ({kind}), whose locks fail; use a local disk")


def _filesystem(path: Path) -> str:
    """Return the type of the filesystem that holds a path, or "" if it is not known."""
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    real = path.absolute().resolve()
    return next((mounts[folder] for folder in (real, *real.parents) if folder in mounts), "")


def _long_chunks(settings: Settings, indexes: Sequence[IndexSettings]) -> Iterator[Advice]:
    """Yield advice about chunks longer than the model's context, which are refused, halved and sent again."""
    length = _context_length(settings) if settings.embedder.kind == "ollama" else None
    for index in indexes if length else ():
        tokens, max_chars = index.chunk_chars // CHARS_PER_TOKEN, (length or 0) * CHARS_PER_TOKEN * 3 // 4
        if length and tokens > length:
            yield Advice(
                index.name,
                f"chunk_chars = {index.chunk_chars} is about {tokens} tokens, but {settings.embedder.model} accepts "
                f"only {length}, so chunks are refused and halved; set chunk_chars to {max_chars} or less",
            )


def _context_length(settings: Settings) -> int | None:
    """Return the context length of the model in tokens, or None if the first host does not tell."""
    from rag_index.hosts.ollama_client import OllamaEndpoint

    async def ask() -> int | None:
        endpoint = OllamaEndpoint(settings.embedder.hosts[0], settings.embedder)
        try:
            return (await endpoint.details()).context_length
        finally:
            await endpoint.close()

    try:
        return asyncio.run(ask())
    except RagIndexError:
        return None  # the check-up itself says that the embedder does not answer
