"""The tables of a settings file, each a model: its keys, their defaults, and what cannot be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from rag_index.settings.index import IndexSettings
from rag_index.settings.values import (
    Auto,
    DaskAddress,
    DatabaseUrl,
    HttpUrl,
    Number,
    PositiveInt,
    Section,
    Share,
    Whole,
)

__all__ = [
    "EmbedderSettings",
    "IndexSettings",
    "LedgerSettings",
    "ParallelSettings",
    "RunSettings",
    "SourceSettings",
    "StoreSettings",
]

KNOWN_PREFIXES = {
    "nomic-embed-text": ("search_document: ", "search_query: "),
    "mxbai-embed-large": ("", "Represent this sentence for searching relevant passages: "),
    "snowflake-arctic-embed": ("", "Represent this sentence for searching relevant passages: "),
    "snowflake-arctic-embed2": ("", "query: "),
    "snowflake-arctic-embed-l-v2.0": ("", "query: "),
    "snowflake-arctic-embed-m-v2.0": ("", "query: "),
    "e5-small": ("passage: ", "query: "),
    "e5-base": ("passage: ", "query: "),
    "e5-large": ("passage: ", "query: "),
    "embeddinggemma": ("title: none | text: ", "task: search result | query: "),
}
"""Document and query prefix by model, from the models' own cards; others need none."""


def known_prefixes(model: str) -> tuple[str, str]:
    """Document and query prefix of a model, whatever repository, size and tag its name carries."""
    name = model.lower().rsplit("/", 1)[-1].split(":", 1)[0]
    found = [known for known in KNOWN_PREFIXES if re.search(rf"(^|[-_.]){re.escape(known)}($|[-_.])", name)]
    if not found or "instruct" in name:
        return "", ""
    return KNOWN_PREFIXES[max(found, key=len)]


class SourceSettings(Section):
    """`[source]`: the database that is read, never written."""

    url: DatabaseUrl | None = None
    """Must be given where an index is of kind sql."""
    page_rows: PositiveInt = 20_000
    """Most rows read in one query."""


class EmbedderSettings(Section):
    """`[embedder]`: what turns text into vectors."""

    kind: Literal["local", "ollama", "sentence-transformers"] = "local"
    model: str = "wordllama"
    hosts: list[HttpUrl] = Field(default=["http://127.0.0.1:11434"], min_length=1)
    document_prefix: str | None = None
    query_prefix: str | None = None
    timeout: Number = Field(default=120.0, gt=0)
    """Seconds for one embedding request."""
    batch_texts: PositiveInt = 64
    """Most texts a request (ollama), or a call of the model (sentence-transformers)."""
    batch_chars: PositiveInt = 16_000
    """Most characters a request (ollama), or a call of the model (sentence-transformers)."""
    requests_in_flight: PositiveInt = 2
    """Requests under way at once, a worker (ollama)."""
    num_thread: PositiveInt | None = None
    """Threads an Ollama server uses for a request; its own choice where not given."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where the model runs (sentence-transformers)."""
    keep_alive: str = "30m"
    """How long an Ollama server keeps the model loaded."""
    wait_for_recovery: Number = Field(default=600.0, ge=0)
    """Seconds a run waits for an embedder that is down before it ends as failed."""

    @model_validator(mode="after")
    def _known_model(self) -> EmbedderSettings:
        if self.kind == "local" and self.model != "wordllama":
            raise ValueError(f"model {self.model!r} does not exist for kind 'local'; use 'wordllama' or kind 'ollama'")
        if self.kind == "ollama" and self.model in ("wordllama", ""):
            raise ValueError("kind 'ollama' needs a model, for example model = \"nomic-embed-text\"")
        if self.kind == "sentence-transformers" and self.model in ("wordllama", ""):
            raise ValueError("kind 'sentence-transformers' needs a model: a folder, or a name as on the model hub")
        document, query = known_prefixes(self.model) if self.kind != "local" else ("", "")
        if self.document_prefix is None:
            object.__setattr__(self, "document_prefix", document)
        if self.query_prefix is None:
            object.__setattr__(self, "query_prefix", query)
        return self


class StoreSettings(Section):
    """`[store]`: a folder for the embedded Qdrant, or the URL of a server."""

    path: Path = Path(".rag-index/qdrant")
    url: HttpUrl | None = None
    api_key: SecretStr | None = None
    timeout: Number = Field(default=60.0, gt=0)
    """Seconds for one request to a server."""
    keep_previous: Whole = Field(default=1, ge=0)
    """Older collections kept for a rollback."""
    hnsw: Literal["auto", "never"] = "auto"
    """Whether a run builds the search index of large embedded collections; `rag-index optimize` does in any case."""

    def secret_api_key(self) -> str | None:
        """The key in clear, for the client alone."""
        return self.api_key.get_secret_value() if self.api_key else None


class LedgerSettings(Section):
    """`[ledger]`: the database that remembers what is indexed."""

    url: DatabaseUrl = SecretStr("sqlite:///.rag-index/ledger.db")


class ParallelSettings(Section):
    """`[parallel]`: Dask workers, and how much each is given at a time."""

    workers: PositiveInt | Auto = "auto"
    shard_documents: PositiveInt | Auto = "auto"
    """Documents a shard."""
    shard_seconds: Number = Field(default=5.0, gt=0)
    """What an automatic shard should take."""
    min_shard_documents: PositiveInt = 1
    """Fewest documents of an automatic shard."""
    max_shard_documents: PositiveInt = 6_000
    """Most documents of an automatic shard: the shortest ones take memory as well, in the flow and in the worker."""
    memory: PositiveInt | Auto = "auto"
    """Megabytes for the flow, its server and all workers; what the machine or its cgroup has."""
    worker_memory: PositiveInt | Auto = "auto"
    """Megabytes for a worker: one that takes more is ended. By itself what it is taken to need, and no limit."""
    max_load: Number | None = Field(default=None, gt=0)
    """No more workers are used than this leaves room for above the machine's load as the run begins."""
    process_timeout: Number | None = Field(default=None, gt=0)
    """Seconds after which a worker that is still at the same shard is ended, as one that hangs."""
    serial: bool = False
    """Embed in the process of the flow, one shard after another, with no Dask cluster."""
    address: DaskAddress | None = None
    """The scheduler of a Dask cluster that is there already, such as tcp://10.0.0.5:8786; none of its own then."""
    tls_ca_file: Path | None = None
    """With a tls:// address: the authority that scheduler and workers are checked against."""
    tls_cert: Path | None = None
    """With a tls:// address: the certificate this program shows."""
    tls_key: Path | None = None
    """With a tls:// address: its key."""

    @model_validator(mode="after")
    def _in_order(self) -> ParallelSettings:
        if self.min_shard_documents > self.max_shard_documents:
            least, most = self.min_shard_documents, self.max_shard_documents
            raise ValueError(f"min_shard_documents {least} is more than max_shard_documents {most}; make it less")
        return self

    @model_validator(mode="after")
    def _tls_whole(self) -> ParallelSettings:
        files = (self.tls_ca_file, self.tls_cert, self.tls_key)
        if (self.address or "").startswith("tls://") and None in files:
            raise ValueError("a tls:// address needs tls_ca_file, tls_cert and tls_key")
        if any(files) and not (self.address or "").startswith("tls://"):
            raise ValueError("tls_ca_file, tls_cert and tls_key go with an address that begins with tls://")
        return self


class RunSettings(Section):
    """`[run]`: what a run may do and how long it waits."""

    delete_guard: Share = 0.2
    """Largest share of an index that a run deletes without --allow-deletes."""
    tolerate_failed: Share = 0.0
    """Share of documents that may fail in a run that still counts as completed."""
    wait: Number = Field(default=0.0, ge=0)
    """Seconds to wait for services that are down at the start."""
    metrics_file: Path | None = None
    """Where each run writes the figures of every index's last run: .json, or .prom for Prometheus."""

    @field_validator("metrics_file")
    @classmethod
    def _of_a_known_form(cls, value: Path | None) -> Path | None:
        if value is not None and value.suffix not in (".json", ".prom"):
            raise ValueError("should end with .json, or with .prom for Prometheus's text form")
        return value
