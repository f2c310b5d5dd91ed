"""The tables of a settings file as models: their keys, defaults and checks."""

from __future__ import annotations

import os
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr, SecretStr, field_validator, model_validator

from rag_index.database.drivers import database_url
from rag_index.settings.plugins import EMBEDDERS, installed
from rag_index.settings.prompts import known_prompts
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
DOCUMENT, CHUNK = "{document}", "{chunk}"
"""Placeholders of a prompt: for the document, or a part of it, and for the chunk."""


class ServerSettings(Section):
    """`[store.server]`: a key that is not set leaves to the server, or to whoever set it by hand, what it is about."""

    grpc_port: Port | None = None
    """The port for gRPC. Not set: the URL's port plus one is tried. `0`: REST alone."""
    shard_number: PositiveInt | None = None
    """How many shards a collection has. An existing collection keeps its number until a rebuild, and a run says so."""
    replication_factor: PositiveInt | None = None
    """How many replicas each shard has."""
    write_consistency_factor: PositiveInt | None = None
    """How many replicas must have taken a write before it counts as done. At most `replication_factor`."""
    on_disk_vectors: bool | None = None
    """Whether vectors are read from disk instead of memory."""
    on_disk_payload: bool | None = None
    """Whether payloads are read from disk instead of memory."""
    hnsw_m: PositiveInt | None = None
    """How many edges a point has in the search index. More find more, and take more memory."""
    hnsw_ef_construct: Annotated[Int, Field(ge=4)] | None = None
    """How many neighbours, at least 4, are considered when a point is added. More find more, and take longer."""
    quantization: Literal["none", "scalar", "binary", "turbo"] | None = None
    """The compressed copy of the vectors that searches read first: `scalar` (a quarter of the size), `turbo` (an
    eighth, Qdrant 1.18 or newer), `binary` (a 32nd), or `none` to remove one."""
    bulk: bool = False
    """Whether a new collection is loaded without its search index, which the server builds before it is published."""

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


def _check_role(value: str) -> str:
    if value.strip().lower() in ("", "none", "default"):
        raise ValueError(f"{value!r} is no role: PostgreSQL takes it for the role that reads")
    return value


class SourceSettings(Section):
    """`[source]`: the database that is read and never written."""

    url: DatabaseUrl | None = None
    """The database to read; required if an index is of kind `sql`. It is never written to: SQLite is opened read-only,
    and PostgreSQL, MySQL and MariaDB are read in read-only transactions. What is set there for all connections and
    would change or cut off what is read, such as `DateStyle` or `sql_select_limit`, does not count. Sessions are in
    UTC, `now()` in your SQL too, unless the URL names a zone: `?options=-c TimeZone=Europe/Berlin` for PostgreSQL,
    `?init_command=SET time_zone='Europe/Berlin'` for the others. Drivers come with `rag-index[postgresql]` and
    `rag-index[mariadb]`; install the SQLAlchemy driver of any other database yourself.
    Texts of a PostgreSQL database without an encoding (`SQL_ASCII`) are read as UTF-8, or as `?client_encoding=latin1`
    at the end of the URL says."""
    page_rows: PositiveInt = 20_000
    """The maximum number of rows of one query, which also ends at about 4 million characters."""
    timeout: Number = Field(default=600.0, gt=0)
    """How long one query may take, in seconds. One that takes longer is ended, and tried once more."""
    changes: Literal["wal", "queue", "poll"] = "poll"
    """How a watch learns of changes between two runs. `wal`: the write-ahead log of PostgreSQL. `queue`: a table that
    triggers fill. `poll`: repeated queries by `changed_since`."""
    digest: bool = False
    """Whether the database computes [digests of its rows](operations.md#large-tables-digest), so that a run reads only
    rows near those that changed. For PostgreSQL, MariaDB, MySQL and SQLite."""
    caller_roles: list[Annotated[str, AfterValidator(_check_role)]] = Field(default=[])
    """The roles under which a database may [decide what a caller sees](access.md#rights-that-the-database-decides)."""
    caller_settings: dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.\w+)+$")], str] = Field(default={})
    """The claim of the caller that each setting has which policies read, such as `{"app.tenant" = "tenant_id"}`. All
    claims are in `request.jwt.claims` anyway."""

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
    """`local`: in the process, no server (wordllama, 256 dimensions). `ollama`: one or several Ollama servers.
    `openai`: [any server with `POST /v1/embeddings`](servers.md#any-other-server). `sentence-transformers`: a model of
    that library in each worker's process, on a GPU or one core; it comes with `rag-index[sentence-transformers]`. Any
    other name is that of a [plug-in](plugins.md)."""
    model: str = "wordllama"
    """The model's name, or with `sentence-transformers` its folder; required with any kind but `local`."""
    hosts: list[HttpUrl] = Field(default=["http://127.0.0.1:11434"], min_length=1)
    """The servers (ollama, openai). All must have the same model."""
    url: HttpUrl | None = None
    """The only server, in place of `hosts`, such as `http://127.0.0.1:8000/v1`."""
    api_key_env: str | None = Field(default=None, min_length=1)
    """The environment variable with the server's key (openai). It must be set where settings are read."""
    dimensions: PositiveInt | None = None
    """The length to which vectors are cut, with [models that were made for it](servers.md#shorter-vectors)."""
    document_prefix: str | None = None
    """Text put before each chunk. Not set: what the model was trained with, see [the models](servers.md#prefixes)."""
    query_prefix: str | None = None
    """Text put before each query. Not set: what the model was trained with."""
    timeout: Number = Field(default=120.0, gt=0)
    """How long one embedding request may take, in seconds."""
    start_timeout: Number = Field(default=60.0, gt=0)
    """How long a server may take to embed a plain text, the loading of its model included, in seconds: at the start of
    a run, and after it failed (ollama, openai)."""
    price: Number | None = Field(default=None, ge=0)
    """What a million characters [cost](costs.md#money) to embed, in any currency."""
    batch_texts: PositiveInt = 64
    """The maximum number of texts in a request to a server, or in a call of the model (sentence-transformers)."""
    batch_chars: PositiveInt = 16_000
    """The maximum number of characters in a request or a call. A longer text is sent alone."""
    requests_in_flight: PositiveInt = 2
    """How many requests are under way at once, for each worker and each of its own hosts (ollama, openai)."""
    num_thread: PositiveInt | None = None
    """How many threads Ollama uses for a request. Not set: Ollama chooses."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where a sentence-transformers model runs, the reranker too: `auto`, `cuda`, `mps` or `cpu`."""
    keep_alive: str = "30m"
    """How long Ollama keeps the model loaded."""
    wait_for_recovery: Number = Field(default=600.0, ge=0)
    """How long a run waits for a server that goes down while it is embedding, in seconds."""
    options: dict[str, Any] = Field(default={})
    """What a [plug-in](plugins.md) is given."""

    _api_key: SecretStr | None = PrivateAttr(default=None)

    @property
    def api_key(self) -> SecretStr | None:
        """The key that the variable `api_key_env` held when the settings were read; None if there is none."""
        return self._api_key

    def cost(self, chars: float) -> float:
        """Return what it costs to embed this many characters, by `price`."""
        return chars * (self.price or 0.0) / 1e6

    @property
    def on_servers(self) -> bool:
        """Whether the model is on servers."""
        return self.kind in ON_SERVERS

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
        if self.kind in EMBEDDER_KINDS[1:] and self.model in ("wordllama", ""):
            raise ValueError(f"kind {self.kind!r} needs a model: the name by which its server or library knows it")
        if self.url is not None and "hosts" in self.model_fields_set and self.hosts != [self.url]:
            raise ValueError("url and hosts name servers twice: give one of them")
        if self.kind == "openai" and not self.model_fields_set & {"url", "hosts"}:
            raise ValueError("kind 'openai' needs a server, for example url = \"http://127.0.0.1:8000/v1\"")
        if self.url is not None:
            object.__setattr__(self, "hosts", [self.url])
        if self.api_key_env is not None and (key := os.environ.get(self.api_key_env, "").strip()):
            self._api_key = SecretStr(key)
        if self.kind == "sentence-transformers":  # the model may bring its own, which are known once it is loaded
            return self
        document, query = known_prompts(self.model) or ("", "")
        if self.document_prefix is None:
            object.__setattr__(self, "document_prefix", document)
        if self.query_prefix is None:
            object.__setattr__(self, "query_prefix", query)
        return self


class StoreSettings(Section):
    """`[store]`: a folder for the embedded Qdrant, or the URL of a server."""

    path: Path = Path(".rag-index/qdrant")
    """The folder of the embedded Qdrant, on a local disk, if there is no `url`; by default in the folder `data`."""
    url: HttpUrl | None = None
    """The address of a Qdrant server, such as `http://127.0.0.1:6333`."""
    api_key: SecretStr | None = None
    """The API key of the Qdrant server."""
    timeout: Number = Field(default=60.0, gt=0)
    """How long one request to the server may take, in seconds."""
    keep_previous: Int = Field(default=1, ge=0)
    """How many older collections of an index a rebuild keeps for `rollback`."""
    erase: bool = False
    """A run ends by [erasing](deleted-data.md) what it deleted or changed from every file of the store, and keeps no
    collection for `rollback`."""
    server: ServerSettings = ServerSettings()
    """The collections of a Qdrant server, see [`[store.server]`](#storeserver)."""

    def secret_api_key(self) -> str | None:
        """Return the key in clear text, for the client only."""
        return self.api_key.get_secret_value() if self.api_key else None


class LedgerSettings(Section):
    """`[ledger]`: the database that records what is indexed."""

    url: DatabaseUrl = SecretStr("sqlite:///.rag-index/ledger.db")
    """The database of the [ledger](glossary.md): SQLite on a local disk, or PostgreSQL if runs start on several
    machines. By default `ledger.db` in the folder `data`."""


class ParallelSettings(Section):
    """`[parallel]`: the Dask workers of a run, and the shards of documents that each receives."""

    workers: PositiveInt | Auto = "auto"
    """How many Dask workers are started. `auto`: one fewer than the processors that this process may use, at least one.
    None are started for work that takes less time than starting them, or if memory has room for none. Then a process
    beside the command or flow embeds ([how](how-it-works.md#how-the-data-flows))."""
    shard_documents: PositiveInt | Auto = "auto"
    """How many documents make a [shard](glossary.md), the work that one worker is given at a time. `auto`: as many as
    take five seconds at the measured rate."""
    worker_memory: PositiveInt | Auto = "auto"
    """How much memory one worker may take, in megabytes. One that takes more is ended, and the document that it was
    embedding is listed as failed. `auto`: what a worker is expected to need limits their number, and none is ended."""
    process_timeout: Annotated[Number, Field(gt=0)] | Auto = "auto"
    """How long a worker may take for one shard, in seconds. One that takes longer is ended, and the document is listed
    as failed. `auto`: 10 minutes and 30 times what the shard should take at the measured rate, with what the embedder's
    timeouts allow: about half an hour with Ollama. A serial run has no limit."""
    serial: bool = False
    """Whether to embed in the run's process, one shard after another, without other processes."""
    dashboard: bool = False
    """Whether a run with workers has [Dask's dashboard](operations.md#who-may-look-at-dasks-dashboard)."""
    address: DaskAddress | None = None
    """The scheduler of an existing Dask cluster, such as `tcp://10.0.0.5:8786`; `workers` is then ignored."""
    tls_ca_file: Path | None = None
    """With a `tls://` address: the certificate authority that vouches for scheduler and workers."""
    tls_cert: Path | None = None
    """With a `tls://` address: the flow's certificate."""
    tls_key: Path | None = None
    """With a `tls://` address: the certificate's key."""

    @model_validator(mode="after")
    def _check_consistency(self) -> ParallelSettings:
        files = (self.tls_ca_file, self.tls_cert, self.tls_key)
        if (self.address or "").startswith("tls://") and None in files:
            raise ValueError("a tls:// address needs tls_ca_file, tls_cert and tls_key")
        if any(files) and not (self.address or "").startswith("tls://"):
            raise ValueError("tls_ca_file, tls_cert and tls_key need an address that begins with tls://")
        return self


def _check_suffix(value: Path) -> Path:
    if value.suffix != ".prom":
        raise ValueError("should end with .prom: it is Prometheus's text format, and `report --json` prints JSON")
    return value


class RunSettings(Section):
    """`[run]`: what a run may delete and tolerate, how long it waits, and where it writes metrics."""

    delete_guard: Share = 0.2
    """The largest share of an index, or of the rows of a part, that may be lost in 30 days before [the delete
    guard](how-it-works.md#the-delete-guard) steps in."""
    tolerate_failed: Share = 0.0
    """The share of documents that may fail in a run that still counts as completed."""
    wait: Number = Field(default=0.0, ge=0)
    """How long a run waits at its start for services that are down or an embedded store in use, in seconds."""
    keep_days: Number = Field(default=90.0, ge=1)
    """How long the history is kept, in days, at least 1: runs, and contexts that nothing needs. Each run deletes [what
    is older](operations.md#what-is-pruned)."""
    max_cost: Number | None = Field(default=None, gt=0)
    """What a run may [cost](costs.md#money) at most, for all its indexes together. It fails before it embeds more."""
    metrics_file: Annotated[Path, AfterValidator(_check_suffix)] | None = None
    """Where each run writes the metrics of every index's last run, in Prometheus's text format (`.prom`)."""


def _check_prompt(prompt: str) -> str:
    if any(prompt.count(name) != 1 for name in (DOCUMENT, CHUNK)):
        raise ValueError(f"should contain {DOCUMENT} and {CHUNK} exactly once each")
    return prompt


class ContextSettings(Section):
    """`[indexes.context]`: the model that writes for each chunk a sentence about its place in the document."""

    model: str = Field(min_length=1)
    """The name of a generating model on the Ollama servers, such as `llama3.2`."""
    hosts: list[HttpUrl] | None = Field(default=None, min_length=1)
    """The Ollama servers. Not set: those of `[embedder]`, or `http://127.0.0.1:11434` if it is of another kind."""
    concurrency: PositiveInt = 10
    """How many contexts a worker asks for at once, over all hosts. An overloaded server gets fewer."""
    max_chars: Int = Field(default=300, ge=20)
    """The maximum length of a context, at least 20, in characters. Of a longer one the sentences that fit are used."""
    prompt: Annotated[str, AfterValidator(_check_prompt)] | None = None
    """The question, with `{document}` and `{chunk}` once each. Not set: [this one](sources.md#the-prompt)."""
    timeout: Number = Field(default=120.0, gt=0)
    """How long one question may take, in seconds."""
    required: bool = False
    """Whether a document fails if a chunk gets no context, in place of being listed as incomplete."""
    num_ctx: Int = Field(default=8192, ge=1024)
    """The context length for question and answer, at least 1024, in tokens; less if the model takes less. If a document
    does not fit, the model sees the part around the chunk."""
    keep_alive: str = "30m"
    """How long Ollama keeps the model loaded."""


class GateSettings(Section):
    """`[indexes.gate]`: what a rebuilt collection must still find before it goes live."""

    queries: Path
    """The golden file, one JSON object a line: a query and the ids of the documents that it should find. A relative
    path starts at the folder of the settings file."""
    metric: str = Field(default="recall@10", pattern=r"^[^@\s]+( [^@\s]+)*@[1-9]\d{0,3}$")
    """The measure of a search: `recall@k`, `MRR@k` or `nDCG@k`."""
    max_loss: Share = 0.02
    """How much lower the mean of the metric may be in the rebuilt collection: 0.02 is 2 points of recall."""


class RetrieveSettings(Section):
    """`[retrieve]`: how several indexes are searched together."""

    timeout: Number = Field(default=10.0, gt=0)
    """How long a whole search may take, in seconds."""
    index_timeout: Number = Field(default=5.0, gt=0)
    """How long each index within a search may take, in seconds."""
    concurrency: PositiveInt = 32
    """How many requests go to the store at once, over all searches; on a server at least one for each index."""
    dense_weight: Number | None = Field(default=None, ge=0, le=1)
    """The weight of meaning against words in a hybrid search; 1 is meaning alone. By default 0.7 for the local embedder
    and 0.9 for others, and 0.4 for a name in source code."""
    reranker: str | None = Field(default=None, min_length=1)
    """What [reranks the best hits](retrieval.md#reranking): the address of a server, such as `http://gpu:8080`, a
    CrossEncoder of sentence-transformers (a folder, or a name as on the model hub), or a [plug-in](plugins.md)."""
    rerank_top: PositiveInt = Field(default=50, le=1000)
    """How many of the best documents the reranker reads, at most 1,000."""
    cache_size: Int = Field(default=1000, ge=0)
    """How many query vectors are kept in memory; 0 keeps none."""
    idle_seconds: Number = Field(default=300.0, gt=0)
    """After this time without a search, in seconds, an embedded store is closed; after ten if a run wants to write."""


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
    """The address to listen on. Any other than this machine's own (`127.0.0.1`, `::1`, `localhost`) needs tokens."""
    port: Port = 8765
    """The port to listen on; 0 takes a free one."""
    tokens: list[str] = Field(default=[])
    """Who may ask: a line for each token, with its hash, as `rag-index serve --new-token NAME` prints it."""
    tokens_file: Path | None = None
    """A file with such lines. It is read again when it changes, so that a token can be taken back at once."""
    jwt_keys: str | None = Field(default=None, min_length=1)
    """The https address of the public keys (JWKS) of the issuer whose JWTs are tokens too: see
    [single sign-on](service.md#single-sign-on)."""
    jwt_audience: str | None = Field(default=None, min_length=1)
    """The audience that a JWT must name. It is needed with `jwt_keys`."""
    jwt_issuer: str | None = Field(default=None, min_length=1)
    """The issuer that a JWT must name. Not set: any whose signature is good."""
    jwt_groups: str = Field(default="groups", min_length=1)
    """The claim that holds the groups, a list or one text. Dots lead into objects, as in `realm_access.roles`."""
    jwt_role: str | None = Field(default=None, min_length=1)
    """The claim with the role of a JWT's owner [in the database](access.md#rights-that-the-database-decides). Not set:
    all have the first of `caller_roles`."""
    proxy: list[Network] = Field(default=[])
    """The addresses or networks of proxies that make sure who asks."""
    proxy_groups: str | None = Field(default=None, min_length=1)
    """The header in which such a proxy names the caller's groups, separated by commas."""
    hosts: list[HostName] = Field(default=[])
    """The names under which others reach the service, such as that of a reverse proxy; it refuses any other."""
    cors: list[Origin] = Field(default=[])
    """The origins of other web pages that may ask from a browser, such as `https://intranet.example.com`."""
    timeout: Number = Field(default=30.0, gt=0)
    """How long a request may take, in seconds."""
    max_body_bytes: Int = Field(default=100_000, gt=0)
    """How large the body of a request may be, in bytes."""
    max_requests: Int = Field(default=256, ge=1)
    """How many requests are answered at the same time; more are told to come back."""
    log_queries: bool = False
    """Whether the log says what is searched for."""

    @model_validator(mode="after")
    def _check_sign_on(self) -> ServeSettings:
        if self.jwt_keys and not self.jwt_audience:
            raise ValueError("jwt_keys needs jwt_audience: else tokens that are meant for other services are good here")
        if self.jwt_keys and not re.match(r"https://|http://(localhost[:/]|127\.|\[::1\])", self.jwt_keys):
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
    """The time between two looks at the source, where nothing wakes the watch earlier, in seconds."""
    batch_documents: PositiveInt = 5_000
    """The maximum number of documents that are indexed at once; fewer where they take longer than two seconds."""
    burst_documents: PositiveInt = 100_000
    """How many documents one change, such as a large transaction, may concern before an ordinary run takes over."""
