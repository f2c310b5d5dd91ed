"""Settings of earlier versions that decide nothing any more. A file that has one works unchanged, and is told once what
decides it now."""

from __future__ import annotations

import copy
import logging
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger("rag_index.settings")

WITHDRAWN: dict[tuple[str, ...], str] = {
    ("source", "digest"): "digests are used wherever the database can compute them and the table is large enough",
    ("indexes", "changed_since"): "the database computes digests of its rows, which find every change",
    ("source", "page_rows"): "a query reads at most 20,000 rows, and about 4 million characters",
    ("indexes", "max_file_bytes"): "a file of more than 1,000,000 bytes is skipped and listed",
    ("run", "max_cost"): "the limit that the provider of the embeddings offers bounds what a run costs",
    ("embedder", "wait_for_recovery"): "`[run] wait_for_recovery` says how long a run waits for any of its services",
    ("run", "keep_days"): "the history is kept for 90 days",
    ("run", "wait"): "a flow waits for `[run] wait_for_recovery` seconds, and a command for as long as `--wait` says",
    ("embedder", "price"): "`rag-index plan` says how many characters a run embeds",
    ("source", "changes"): "a watch needs no set-up: it asks the database whether anything was written",
    ("watch", "poll_seconds"): "a watch looks each second",
    ("watch", "batch_documents"): "a run of a watch embeds for 30 seconds, and then looks again",
    ("watch", "burst_documents"): "a run of a watch embeds for 30 seconds, and then looks again",
    ("indexes", "depends_on"): "a run finds changed rows of other tables by itself",
    ("embedder", "device"): "the library takes a GPU if there is one; `CUDA_VISIBLE_DEVICES` hides it",
    ("embedder", "keep_alive"): "Ollama keeps a model for 30 minutes after its last request",
    ("parallel", "dashboard"): "a run's own workers have none; a Dask cluster of yours (`address`) has one",
    ("parallel", "tls_ca_file"): "Dask's own configuration has the certificates of a cluster of yours",
    ("parallel", "tls_cert"): "Dask's own configuration has the certificates of a cluster of yours",
    ("parallel", "tls_key"): "Dask's own configuration has the certificates of a cluster of yours",
    ("indexes", "gate", "metric"): "the gate measures recall@10",
    ("store", "server", "bulk"): "a first collection is live from its first commit, and Qdrant indexes what arrives",
    ("retrieve", "index_timeout"): "each index has four fifths of `[retrieve] timeout`",
    ("retrieve", "rerank_top"): "a reranker reads the best 50 documents",
    ("retrieve", "idle_seconds"): "an embedded store is closed after five minutes without a search",
    ("serve", "timeout"): "a request may take 30 seconds",
    ("serve", "max_body_bytes"): "a body may have 100,000 bytes; a proxy in front can allow fewer",
    ("serve", "max_requests"): "256 requests are answered at a time; a proxy in front can allow fewer",
    ("serve", "log_queries"): "the log never has queries, and `query_log` keeps them in a file of its own",
    ("serve", "query_log_days"): "an entry of `query_log` is kept for 30 days",
    ("indexes", "context", "concurrency"): "a worker asks for 10 contexts at once, and an overloaded server for fewer",
    ("indexes", "context", "max_chars"): "a context has at most 300 characters",
    ("indexes", "context", "prompt"): "there is one prompt, and contexts of another one are written again by a rebuild",
    ("indexes", "context", "timeout"): "a question may take 120 seconds",
    ("indexes", "context", "required"): "a document whose chunks lack contexts is listed as incomplete",
    ("indexes", "context", "num_ctx"): "question and answer have 8,192 tokens, or fewer if the model takes fewer",
}
"""What decides it now, by the place of each setting that is gone."""


def without_withdrawn(values: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Return the values of a settings file without settings that are gone, and log what decides each of them now."""
    kept = copy.deepcopy(dict(values))
    for place, instead in WITHDRAWN.items():
        if _drop(kept, place):
            _say(f"{file}: {name_of(place)} is gone, and ignored: {instead}")
    tables = {place[0] for place in WITHDRAWN}
    return {name: value for name, value in kept.items() if value != {} or name not in tables}  # the table may be gone


def say_variable_is_withdrawn(variable: str, place: tuple[str, ...]) -> None:
    """Log what decides a setting now that a variable of the environment still names."""
    _say(f"{variable}: {name_of(place)} is gone, and ignored: {WITHDRAWN[place]}")


def name_of(place: tuple[str, ...]) -> str:
    """Return what a person calls a place, such as `[run] max_cost`."""
    table = ".".join(place[:-1])
    return f"[[{table}]] {place[-1]}" if table == "indexes" else f"[{table}] {place[-1]}"


def _drop(values: Any, place: tuple[str, ...]) -> bool:
    """Remove a setting, one of an index from all indexes, and return whether it was given."""
    if isinstance(values, list):
        return True in [_drop(one, place) for one in values]  # of all indexes
    if not isinstance(values, dict) or place[0] not in values:
        return False
    if place[1:]:
        return _drop(values[place[0]], place[1:])
    del values[place[0]]
    return True


@cache
def _say(sentence: str) -> None:
    """Log a sentence once a process: settings are read again by whatever lives long."""
    logger.warning("%s", sentence)
