"""The tables of a settings file as models: their keys, defaults and checks."""

from __future__ import annotations

import os
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PrivateAttr, SecretStr, field_validator, model_validator

from rag_index.database.drivers import database_url
from rag_index.settings.plugins import EMBEDDERS, installed
from rag_index.settings.values import Auto, DaskAddress, DatabaseUrl, HttpUrl, Int, Number, PositiveInt, Section, Share

Port = Annotated[Int, Field(ge=0, le=65_535)]
QUEUES = {
    "postgresql": "postgres:PostgresQueue",
    "mariadb": "mariadb:MariadbQueue",
    "mysql": "mariadb:MariadbQueue",
    "sqlite": "sqlite:SqliteQueue",
}
"""The databases whose triggers can note changes, each with its feed in `rag_index.changes.queues`."""
CHANGES = {"wal": ["postgresql"], "queue": [*QUEUES]}
"""The databases in which each way to see changes works."""
ON_SERVERS = ("ollama", "openai")
EMBEDDER_KINDS = ("local", *ON_SERVERS, "sentence-transformers")
"""The built-in kinds of embedders. Any other kind is the name of an entry point (`rag_index.embedders`)."""
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
"""Document and query prefix by model, from the models' own cards. Other models need none."""
_LOCAL_NAME = re.compile(r"localhost|127\.[\d.]+|::1|0\.0\.0\.0")
NEEDED_MODELS = {
    "ollama": ', for example model = "nomic-embed-text"',
    "openai": ": the name by which the server knows it",
    "sentence-transformers": ": a folder, or a name on the model hub",
}
"""What to name as the model of the kinds that have no model of their own."""
DOCUMENT, CHUNK = "{document}", "{chunk}"
"""Placeholders of a prompt: for the document, or a part of it, and for the chunk."""


class ServerSettings(Section):
    """`[store.server]`: a key that is not set leaves to the server, or to whoever set it by hand, what it is about."""

    grpc_port: Port | None = None
    """The port where the server answers gRPC; 0 for REST alone. By default the URL's port plus one is tried."""
    shard_number: PositiveInt | None = None
    """The number of shards of a collection. Only a rebuild changes it."""
    replication_factor: PositiveInt | None = None
    """The number of replicas of each shard."""
    write_consistency_factor: PositiveInt | None = None
    """The number of replicas that must have taken a write before it counts as done."""
    on_disk_vectors: bool | None = None
    """Whether the vectors are read from disk instead of memory."""
    on_disk_payload: bool | None = None
    """Whether the payloads are read from disk instead of memory."""
    hnsw_m: PositiveInt | None = None
    """The number of edges of a point in the search index."""
    hnsw_ef_construct: Annotated[Int, Field(ge=4)] | None = None
    """The number of neighbours that are considered when a point is added to the search index."""
    quantization: Literal["none", "scalar", "binary", "turbo"] | None = None
    """The compressed copy of the vectors that searches read first."""
    quantized_in_memory: bool = True
    """Whether the compressed vectors always stay in memory, also where the vectors are on disk."""
    rescore: bool = True
    """Whether a search of compressed vectors scores the best again by the vectors themselves."""
    oversampling: Annotated[Number, Field(ge=1)] = 2.0
    """How many times more candidates than wanted are looked up among compressed vectors before they are scored."""
    bulk: bool = False
    """Whether a collection is loaded without its search index, which is built before the collection is published."""

    @property
    def quantized(self) -> bool:
        """Whether collections get compressed vectors."""
        return self.quantization not in (None, "none")

    @model_validator(mode="after")
    def _check_replicas(self) -> ServerSettings:
        replicas, needed = self.replication_factor, self.write_consistency_factor
        if replicas is not None and needed is not None and needed > replicas:
            raise ValueError(
                f"write_consistency_factor {needed} is more than replication_factor {replicas}; no write could be "
                "completed, lower it"
            )
        return self


def known_prefixes(model: str) -> tuple[str, str]:
    """Return document and query prefix of a model, whatever repository, size and tag are in its name."""
    name = model.lower().rsplit("/", 1)[-1].split(":", 1)[0]
    matches = [known for known in KNOWN_PREFIXES if re.search(rf"(^|[-_.]){re.escape(known)}($|[-_.])", name)]
    if not matches or "instruct" in name:
        return "", ""
    return KNOWN_PREFIXES[max(matches, key=len)]


class SourceSettings(Section):
    """`[source]`: the database that is read and never written."""

    url: DatabaseUrl | None = None
    """The database to read. It is required if an index is of kind sql."""
    page_rows: PositiveInt = 20_000
    """The maximum number of rows that one query reads."""
    timeout: Number = Field(default=600.0, gt=0)
    """The time limit of one query, in seconds."""
    changes: Literal["wal", "queue", "poll"] = "poll"
    """How `rag-index watch` learns of changes: the write-ahead log of PostgreSQL, triggers, or repeated queries."""
    digest: bool = False
    """Whether the database computes digests of its rows, so that a run reads only rows near those that changed."""

    @model_validator(mode="after")
    def _check_changes(self) -> SourceSettings:
        if self.url is None or self.changes not in CHANGES:
            return self
        kind = database_url(self.url.get_secret_value(), Path()).get_backend_name()
        if kind not in CHANGES[self.changes]:
            possible = [way for way, databases in CHANGES.items() if kind in databases] or ["poll"]
            raise ValueError(f'changes = "{self.changes}" does not work with {kind}; set it to "{possible[0]}"')
        return self


class EmbedderSettings(Section):
    """`[embedder]`: the model that turns text into vectors."""

    kind: str = "local"
    """`local` (in the process), `ollama`, `openai` (servers), `sentence-transformers` (torch), or a plug-in's name."""
    model: str = "wordllama"
    """The name of the model; for sentence-transformers also a folder."""
    hosts: list[HttpUrl] = Field(default=["http://127.0.0.1:11434"], min_length=1)
    """The servers, which must all have the same model (ollama, openai)."""
    url: HttpUrl | None = None
    """The only server, in place of `hosts`, such as http://127.0.0.1:8000/v1 (openai)."""
    api_key_env: str | None = Field(default=None, min_length=1)
    """The environment variable that holds the server's key (openai)."""
    dimensions: PositiveInt | None = None
    """The length to which vectors are cut, for models made for it (Matryoshka). By default the model's own."""
    document_prefix: str | None = None
    """The text put before each chunk. By default the one that the model is known to need."""
    query_prefix: str | None = None
    """The text put before each query. By default the one that the model is known to need."""
    timeout: Number = Field(default=120.0, gt=0)
    """The time limit of one embedding request, in seconds."""
    start_timeout: Number = Field(default=60.0, gt=0)
    """How long a server may take at the start of a run to embed a plain text, in seconds (ollama, openai)."""
    batch_texts: PositiveInt = 64
    """The maximum number of texts in a request to a server, or in a call of the model (sentence-transformers)."""
    batch_chars: PositiveInt = 16_000
    """The maximum number of characters in a request to a server, or in a call of the model (sentence-transformers)."""
    requests_in_flight: PositiveInt = 2
    """The number of concurrent requests of each worker (ollama, openai)."""
    num_thread: PositiveInt | None = None
    """The number of threads that an Ollama server uses for a request. By default the server chooses."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """The device that a sentence-transformers model runs on, the reranker too."""
    keep_alive: str = "30m"
    """How long an Ollama server keeps the model loaded after a request."""
    wait_for_recovery: Number = Field(default=600.0, ge=0)
    """How long a run waits for a server that goes down while it is embedding, in seconds, before it fails."""
    options: dict[str, Any] = Field(default={})
    """The options that are passed to a plug-in."""

    _tables: Path = PrivateAttr(default=Path(".rag-index/tables"))
    _api_key: SecretStr | None = PrivateAttr(default=None)

    @property
    def api_key(self) -> SecretStr | None:
        """The key that the variable `api_key_env` held when the settings were read; None if there is none."""
        return self._api_key

    @property
    def on_servers(self) -> bool:
        """Whether the model is on servers."""
        return self.kind in ON_SERVERS

    @property
    def tables(self) -> Path:
        """The folder of adapted tables (local), which is in the project's data."""
        return self._tables

    def with_tables(self, folder: Path) -> EmbedderSettings:
        """Return the settings with another folder of adapted tables, which is no key of the file."""
        changed = self.model_copy()
        changed._tables = folder
        return changed

    @property
    def local_hosts(self) -> list[str]:
        """Those of the hosts that are on this machine."""
        return [host for host in self.hosts if _LOCAL_NAME.fullmatch(urlsplit(host).hostname or "")]

    @field_validator("kind")
    @classmethod
    def _check_kind(cls, value: str) -> str:
        if value not in EMBEDDER_KINDS and value not in (plugins := installed(EMBEDDERS)):
            known = ", ".join(map(repr, (*EMBEDDER_KINDS, *plugins)))
            raise ValueError(f"should be {known} or another plug-in's name, once it is installed")
        return value

    @model_validator(mode="after")
    def _check_model(self) -> EmbedderSettings:
        if self.kind == "local" and self.model != "wordllama":
            raise ValueError(f"model {self.model!r} does not exist for kind 'local'; use 'wordllama' or kind 'ollama'")
        if self.kind in NEEDED_MODELS and self.model in ("wordllama", ""):
            raise ValueError(f"kind {self.kind!r} needs a model{NEEDED_MODELS[self.kind]}")
        if self.url is not None and "hosts" in self.model_fields_set and self.hosts != [self.url]:
            raise ValueError("url and hosts name servers twice: give one of them")
        if self.kind == "openai" and not self.model_fields_set & {"url", "hosts"}:
            raise ValueError("kind 'openai' needs a server, for example url = \"http://127.0.0.1:8000/v1\"")
        if self.url is not None:
            object.__setattr__(self, "hosts", [self.url])
        if self.api_key_env is not None and (key := os.environ.get(self.api_key_env, "").strip()):
            self._api_key = SecretStr(key)
        document, query = known_prefixes(self.model) if self.kind != "local" else ("", "")
        if self.document_prefix is None:
            object.__setattr__(self, "document_prefix", document)
        if self.query_prefix is None:
            object.__setattr__(self, "query_prefix", query)
        return self


class StoreSettings(Section):
    """`[store]`: a folder for the embedded Qdrant, or the URL of a server."""

    path: Path = Path(".rag-index/qdrant")
    """The folder of the embedded Qdrant, which is used if no `url` is given."""
    url: HttpUrl | None = None
    """The address of a Qdrant server."""
    api_key: SecretStr | None = None
    """The key of the server."""
    timeout: Number = Field(default=60.0, gt=0)
    """The time limit of one request to a server, in seconds."""
    keep_previous: Int = Field(default=1, ge=0)
    """The number of older collections of an index that a rebuild keeps for a rollback."""
    hnsw: Literal["auto", "never"] = "auto"
    """Whether a run builds the search index of large embedded collections. `rag-index optimize` always does."""
    server: ServerSettings = ServerSettings()
    """The collections of a server: `[store.server]`."""

    def secret_api_key(self) -> str | None:
        """Return the key in clear text, for the client only."""
        return self.api_key.get_secret_value() if self.api_key else None


class LedgerSettings(Section):
    """`[ledger]`: the database that records what is indexed."""

    url: DatabaseUrl = SecretStr("sqlite:///.rag-index/ledger.db")
    """A SQLite file, or PostgreSQL if runs start on several machines."""


class ParallelSettings(Section):
    """`[parallel]`: the Dask workers of a run, and the shards of documents that each receives."""

    workers: PositiveInt | Auto = "auto"
    """The number of worker processes. `auto`: one less than the processors, as far as memory allows; at least 1."""
    shard_documents: PositiveInt | Auto = "auto"
    """The number of documents in a shard. `auto`: as many as take `shard_seconds` at the measured rate."""
    shard_seconds: Number = Field(default=5.0, gt=0)
    """How long an automatic shard should take, in seconds."""
    min_shard_documents: PositiveInt = 1
    """The minimum number of documents in an automatic shard."""
    max_shard_documents: PositiveInt = 12_000
    """The maximum number of documents in an automatic shard. Even short ones take memory in flow and worker."""
    memory: PositiveInt | Auto = "auto"
    """Megabytes for the flow, its server and all workers together. `auto`: the memory of the machine or its cgroup."""
    worker_memory: PositiveInt | Auto = "auto"
    """Megabytes for each worker; one that takes more is ended. `auto`: the estimated need, which is not enforced."""
    max_load: Number | None = Field(default=None, gt=0)
    """The maximum of the machine's load at the start of a run plus the number of workers. One worker always runs."""
    process_timeout: Annotated[Number, Field(gt=0)] | Auto = "auto"
    """The seconds after which a worker that is still at the same shard counts as hanging and is ended. `auto`: ten
    minutes beyond what the shard should take, and what the embedder's settings allow it to wait."""
    serial: bool = False
    """Whether to embed in the process of the flow, one shard after another, without a Dask cluster."""
    address: DaskAddress | None = None
    """The scheduler of an existing Dask cluster, such as tcp://10.0.0.5:8786, to use instead of own workers."""
    tls_ca_file: Path | None = None
    """The file of the authority that signs the certificates of a cluster with a tls:// address."""
    tls_cert: Path | None = None
    """The file of the certificate that this program presents to a tls:// address."""
    tls_key: Path | None = None
    """The file of the key of that certificate."""

    @model_validator(mode="after")
    def _check_consistency(self) -> ParallelSettings:
        if self.min_shard_documents > self.max_shard_documents:
            raise ValueError(
                f"min_shard_documents {self.min_shard_documents} is more than max_shard_documents "
                f"{self.max_shard_documents}; lower it"
            )
        files = (self.tls_ca_file, self.tls_cert, self.tls_key)
        if (self.address or "").startswith("tls://") and None in files:
            raise ValueError("a tls:// address needs tls_ca_file, tls_cert and tls_key")
        if any(files) and not (self.address or "").startswith("tls://"):
            raise ValueError("tls_ca_file, tls_cert and tls_key need an address that begins with tls://")
        return self


class RunSettings(Section):
    """`[run]`: what a run may delete and tolerate, how long it waits, and where it writes metrics."""

    delete_guard: Share = 0.2
    """The maximum share of an index that a run deletes without --allow-deletes."""
    tolerate_failed: Share = 0.0
    """The share of documents that may fail in a run that still counts as completed."""
    wait: Number = Field(default=0.0, ge=0)
    """How long a run waits at its start for services that are down, in seconds."""
    keep_days: Number = Field(default=90.0, ge=1)
    """Days for which runs are kept, contexts that nothing needs, and what the ledger has of indexes that are gone."""
    metrics_file: Path | None = None
    """The file for the metrics of each index's last run, written by every run: .json, or .prom for Prometheus."""

    @field_validator("metrics_file")
    @classmethod
    def _check_suffix(cls, value: Path | None) -> Path | None:
        if value is not None and value.suffix not in (".json", ".prom"):
            raise ValueError("should end with .json, or with .prom for the text format of Prometheus")
        return value


def _check_prompt(prompt: str) -> str:
    if any(prompt.count(name) != 1 for name in (DOCUMENT, CHUNK)):
        raise ValueError(f"should contain {DOCUMENT} and {CHUNK} exactly once each")
    return prompt


class ContextSettings(Section):
    """`[indexes.context]`: the model that writes for each chunk a sentence about its place in the document."""

    model: str = Field(min_length=1)
    """A generative model that the Ollama servers have."""
    hosts: list[HttpUrl] | None = Field(default=None, min_length=1)
    """The Ollama servers. By default those of an `ollama` embedder, or else the one on this machine."""
    concurrency: PositiveInt = 10
    """The number of requests that a worker sends at once, one for each chunk."""
    max_chars: Int = Field(default=300, ge=20)
    """The maximum length of a context, in characters."""
    prompt: Annotated[str, AfterValidator(_check_prompt)] | None = None
    """The prompt, with the placeholders {document} and {chunk}. By default the built-in one."""
    timeout: Number = Field(default=120.0, gt=0)
    """The time limit of one request, in seconds."""
    required: bool = False
    """Whether a document fails, and is not indexed, if one of its chunks gets no context."""
    num_ctx: Int = Field(default=8192, ge=1024)
    """The context window in tokens, for request and answer. A model with a smaller window uses its own."""
    keep_alive: str = "30m"
    """How long a server keeps the model loaded after a request."""


class GateSettings(Section):
    """`[indexes.gate]`: what a rebuilt collection must still find before it goes live."""

    queries: Path
    """The golden file: queries, and the documents that each of them should find."""
    metric: str = Field(default="recall@10", pattern=r"^[^@\s]+( [^@\s]+)*@[1-9]\d{0,3}$")
    """The measure of a search, such as recall@10, MRR@10 or nDCG@10."""
    max_loss: Share = 0.02
    """How much lower the mean of the metric may be in the rebuilt collection than in the live one."""


class RetrieveSettings(Section):
    """`[retrieve]`: how several indexes are searched together."""

    timeout: Number = Field(default=10.0, gt=0)
    """The time limit of a whole search, in seconds."""
    index_timeout: Number = Field(default=5.0, gt=0)
    """The time limit of each index within a search, in seconds."""
    concurrency: PositiveInt = 32
    """The maximum number of concurrent requests to the store, over all searches; each index has at least one."""
    fusion: Literal["auto", "rank", "score"] = "auto"
    """How the hits of several indexes are merged. `auto` means `score` if all indexes have one model, else `rank`."""
    dense_weight: Number | None = Field(default=None, ge=0, le=1)
    """The weight of meaning against words in a hybrid search, from 0 (words alone) to 1 (meaning alone)."""
    reranker: str | None = Field(default=None, min_length=1)
    """What orders the best hits: the address of a server with `/v1/rerank`, a CrossEncoder or a model of late
    interaction of sentence-transformers (a folder, or a name on the model hub), or the name of a plug-in."""
    rerank_top: PositiveInt = Field(default=50, le=1000)
    """The number of documents that the reranker reads."""
    cache_size: Int = Field(default=1000, ge=0)
    """The number of query vectors to cache; 0 switches the cache off."""
    cache_seconds: Number = Field(default=3600.0, gt=0)
    """How long a query vector stays in the cache, in seconds."""
    idle_seconds: Number = Field(default=10.0, gt=0)
    """The seconds without a search after which an embedded store is closed, so that a run need not copy it."""


def _check_origin(value: str) -> str:
    if not re.fullmatch(r"https?://[^/\s*@]+", value):
        raise ValueError(f"{value!r} is not an origin; write it as https://intranet.example.com, without a path")
    return value.lower()


def _check_host(value: str) -> str:
    if not re.fullmatch(r"[^/\s:@*]+|\[[0-9A-Fa-f:.]+\]", value):
        raise ValueError(f"{value!r} is not the name of a host; write it without scheme and port")
    return value.lower()


Network = Annotated[str, AfterValidator(lambda value: str(ip_network(value)))]
Origin = Annotated[str, AfterValidator(_check_origin)]
HostName = Annotated[str, AfterValidator(_check_host)]


class ServeSettings(Section):
    """`[serve]`: where `rag-index serve` listens, who may ask, and how much."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """The address to listen on. Any other than this machine's own (127.0.0.1, ::1, localhost) needs tokens."""
    port: Port = 8765
    """The port to listen on; 0 takes a free one."""
    tokens: list[str] = Field(default=[])
    """Who may ask: a line for each token, as `rag-index serve --new-token NAME` prints it, with the token's hash."""
    tokens_file: Path | None = None
    """A file with such lines. It is read again when it changes."""
    jwt_keys: str | None = Field(default=None, min_length=1)
    """The public keys (JWKS) of the issuer whose JWTs are tokens too: a file, or an https address."""
    jwt_audience: str | None = Field(default=None, min_length=1)
    """The audience that a JWT must name. It is needed with `jwt_keys`."""
    jwt_issuer: str | None = Field(default=None, min_length=1)
    """The issuer that a JWT must name."""
    jwt_groups: str = Field(default="groups", min_length=1)
    """The claim that holds the groups of a JWT's owner; dots lead into objects."""
    proxy: list[Network] = Field(default=[])
    """The addresses or networks of proxies that make sure who asks."""
    proxy_groups: str | None = Field(default=None, min_length=1)
    """The header in which such a proxy names the caller's groups, separated by commas."""
    hosts: list[HostName] = Field(default=[])
    """The names under which others reach the service, such as that of a reverse proxy. Other names are refused."""
    cors: list[Origin] = Field(default=[])
    """The origins of other web pages that may ask from a browser."""
    timeout: Number = Field(default=30.0, gt=0)
    """The time limit of a request, in seconds."""
    max_body_bytes: Int = Field(default=100_000, gt=0)
    """The maximum size of a request's body."""
    max_requests: Int = Field(default=256, ge=1)
    """The maximum number of requests that are answered at the same time; more are told to come back."""
    rate_limit: Number = Field(default=100.0, ge=0)
    """How many requests a second each token (without tokens: each address) may make on average; 0 means any number."""
    log_queries: bool = False
    """Whether the log names what is searched for."""

    @model_validator(mode="after")
    def _check_sign_on(self) -> ServeSettings:
        if self.jwt_keys and not self.jwt_audience:
            raise ValueError("jwt_keys needs jwt_audience: else tokens that are meant for other services are good here")
        if self.jwt_keys and re.match(r"http://(?!localhost[:/]|127\.|\[::1\])", self.jwt_keys):
            raise ValueError("jwt_keys must be an https address: on the way from another machine keys can be replaced")
        if bool(self.proxy) != bool(self.proxy_groups):
            raise ValueError("proxy and proxy_groups need each other: whose header counts, and which")
        return self


class DependsOn(Section):
    """An entry of `[[indexes]] depends_on`: a table whose rows the documents of the index show."""

    table: str = Field(min_length=1)
    """The table whose changes are followed; `schema.table` where it is not in the default schema."""
    key: str = Field(min_length=1)
    """The column of that table whose value tells which documents show a row."""
    column: str = Field(min_length=1)
    """The column of the index's `table` or `query` that holds the same value."""


class WatchSettings(Section):
    """`[watch]`: how `rag-index watch` follows changes."""

    poll_seconds: Number = Field(default=2.0, gt=0)
    """The seconds between two looks at the source, where nothing wakes the watch earlier."""
    batch_documents: PositiveInt = 5_000
    """The maximum number of documents that are indexed at once; fewer where they take longer than two seconds."""
    burst_documents: PositiveInt = 100_000
    """The number of waiting documents of an index above which an ordinary run of that index takes over."""
