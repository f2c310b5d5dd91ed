"""Advice about settings that are valid but likely to hurt, as far as this machine can tell."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from rag_index.database.drivers import is_file
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
    for message in _of_all(settings):
        yield Advice(None, message)
    length = _context_length(settings) if settings.embedder.kind == "ollama" else None
    for index in indexes:
        for message in _of_index(settings, index, length):
            yield Advice(index.name, message)


def _of_all(settings: Settings) -> Iterator[str]:
    embedder, run, store = settings.embedder, settings.run, settings.store
    local, workers = embedder.local_hosts, settings.parallel.workers
    if embedder.kind == "ollama" and len(local) > 1 and embedder.num_thread is None:
        yield (
            f"{len(local)} Ollama servers on this machine choose their own number of threads and slow each other down; "
            f"set [embedder] num_thread, for example to {max(1, cpu_count() // len(local))}"
        )
    if embedder.kind == "local" and isinstance(workers, int) and workers > cpu_count():
        yield f"[parallel] workers = {workers}, but this machine has {cpu_count()} processors; set fewer"
    if run.tolerate_failed > MANY_FAILED:
        yield f"tolerate_failed = {run.tolerate_failed:g}: a run counts as completed even if most documents fail"
    if run.delete_guard >= 1:
        yield "delete_guard = 1: if a table is emptied by mistake, its index is emptied too"
    if store.keep_previous == 0:
        yield "keep_previous = 0: after a rebuild there is nothing to roll back to"
    paths = {"[store] path": store.path} if store.url is None else {}
    if is_file(settings.ledger_url):
        paths["[ledger] url"] = Path(str(settings.ledger_url.database))
    for key, path in paths.items():
        if (kind := _filesystem(path)).startswith(NETWORK):
            yield f"{key}: {path} is on a network filesystem ({kind}), whose locks fail; use a local disk"


def _of_index(settings: Settings, index: IndexSettings, length: int | None) -> Iterator[str]:
    """Yield advice about an index. Chunks longer than the model's context are refused, halved and sent again."""
    if settings.source.digest and index.access_query is not None:
        yield "access is a query, so [source] digest has no effect here: the rights are not in the rows"
    elif settings.source.digest and index.changed_since is not None:
        yield "[source] digest finds every change, so runs do not use changed_since; a watch that polls does"
    yield from _small_gate(settings, index)
    tokens = index.chunk_chars // CHARS_PER_TOKEN
    if length and tokens > length:
        model, most = settings.embedder.model, length * CHARS_PER_TOKEN * 3 // 4
        yield (
            f"chunk_chars = {index.chunk_chars} is about {tokens} tokens, but {model} accepts only {length}, so chunks "
            f"are refused and halved; set chunk_chars to {most} or less"
        )


def _small_gate(settings: Settings, index: IndexSettings) -> Iterator[str]:
    """Yield advice about a gate with too few queries to tell the loss that it should stop from chance."""
    try:
        queries = len(check_gate(settings, index))
    except SettingsError:
        return  # a finding
    if index.gate is not None:
        level = LEVEL / (len(WAYS) if bm25_model(index) else 1)
        needed = needed_queries(2 * index.gate.max_loss, level=level)
        if needed is not None and queries < needed:
            yield (
                f"the golden queries of the gate number {queries:,}: stopping a loss of "
                f"twice max_loss ({2 * index.gate.max_loss:g}) 9 times in 10 takes {needed:,}, and more where other "
                "answers change; add queries"
            )


def _filesystem(path: Path) -> str:
    """Return the type of the filesystem that holds a path, or "" if it is not known."""
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    real = path.absolute().resolve()
    return next((mounts[folder] for folder in (real, *real.parents) if folder in mounts), "")


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
