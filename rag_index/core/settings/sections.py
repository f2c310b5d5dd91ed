"""The tables of a settings file as models: their keys, defaults and checks."""

from __future__ import annotations

import os
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, PrivateAttr, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema  # noqa: TC002 - pydantic looks it up

from rag_index.core.settings.parts import (
    ApiKey,
    Auto,
    DaskAddress,
    DatabaseUrl,
    HttpUrl,
    Int,
    LoginUrl,
    Number,
    PositiveInt,
    Secret,
    Section,
    Share,
    header_key,
    known_prompts,
)
from rag_index.core.settings.plugins import EMBEDDERS, installed
from rag_index.redaction import is_secret

Port = Annotated[Int, Field(ge=0, le=65_535)]
ON_SERVERS = ("ollama", "openai")
EMBEDDER_KINDS = ("local", *ON_SERVERS, "fastembed")
"""The built-in kinds of embedders. Any other kind is the name of an entry point
(`rag_index.embedders`)."""
USUAL_TEXTS, USUAL_CHARS = 64, 16_000
"""Texts and characters of a request if the settings say `auto`, as in docs/configuration.md."""


class ServerSettings(Section):
    """`[store.server]`: how a Qdrant server is used. Its own configuration says how collections are
    made."""

    grpc_port: Port | None = None
    """The port for gRPC. Not set: the URL's port plus one is tried. `0`: REST alone."""


SECONDS_OF = {"h": 3600, "d": 86_400, "w": 604_800, "y": 31_557_600}
"""The seconds of each unit of `half_life`; a year has 365.25 days."""


def _check_role(value: str) -> str:
    if value.strip().lower() in ("", "none", "default"):
        raise ValueError(f"{value!r} is no role: PostgreSQL takes it for the role that reads")
    return value


class SourceSettings(Section):
    """`[source]`: the database that is read and never written."""

    url: DatabaseUrl | None = None
    """The database to read; required with kind `sql`. Sessions use UTC, unless the URL names a
    zone: `?options=-c TimeZone=Europe/Berlin` (PostgreSQL), `?init_command=SET
    time_zone='Europe/Berlin'` (the others). Drivers are [extras](install.md#install), or any of
    SQLAlchemy. Texts of PostgreSQL's `SQL_ASCII` are read as UTF-8, or as `?client_encoding=latin1`
    says."""
    timeout: Number = Field(default=600.0, gt=0)
    """The time limit of one query, in seconds. A query that takes longer is ended, and tried once
    more."""
    caller_roles: list[Annotated[str, AfterValidator(_check_role)]] = Field(default=[])
    """The roles under which PostgreSQL may [decide what a caller
    sees](access.md#rights-that-the-database-decides)."""
    caller_settings: dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.\w+)+$")], str] = Field(
        default={}
    )
    """The database settings that policies read, each with the claim of the caller that it gets:
    `{"app.tenant" = "tenant_id"}`."""


class EmbedderSettings(Section):
    """`[embedder]`: the model that turns text into vectors."""

    kind: str = "local"
    """Where the model runs. `local`: in the process (wordllama). `ollama`: on Ollama servers.
    `openai`: on [any server with `POST /v1/embeddings`](servers.md#any-other-server). `fastembed`:
    [in each worker's process](models.md#models-in-the-process). Any other name is a
    [plug-in](plugins.md)."""
    model: str = "wordllama"
    """The name of the model, or with `fastembed` its folder. Required with any kind but `local`."""
    hosts: list[HttpUrl] = Field(default=["http://127.0.0.1:11434"], min_length=1)
    """The servers (ollama, openai), all with the same model."""
    url: HttpUrl | None = None
    """The only server, in place of `hosts`, such as `http://127.0.0.1:8000/v1`."""
    api_key_env: str | None = Field(default=None, min_length=1)
    """The variable that holds the server's key (openai)."""
    dimensions: PositiveInt | None = None
    """The length to which vectors are shortened, with [models that were trained for
    it](servers.md#shorter-vectors)."""
    document_prefix: str | None = None
    """The text before each chunk. Not set: [the model's own](servers.md#prefixes)."""
    query_prefix: str | None = None
    """The text before each query. Not set: the model's own."""
    timeout: Number = Field(default=120.0, gt=0)
    """The time limit of one embedding request, in seconds. It includes loading the model."""
    batch_texts: PositiveInt | Auto = "auto"
    """The maximum number of texts in a request to a server. `auto`: 64."""
    batch_chars: PositiveInt | Auto = "auto"
    """The maximum number of characters in a request. A longer text is sent alone. `auto`:
    16,000."""
    requests_in_flight: PositiveInt | Auto = "auto"
    """How many requests a server gets at once (ollama, openai), shared among the workers. `auto`: 4
    with `ollama`, 16 with `openai`."""
    num_thread: PositiveInt | None = None
    """How many threads Ollama uses for a request. Not set: Ollama chooses."""
    options: dict[str, Any] = Field(default={})
    """Options for the [plug-in](plugins.md)."""

    _api_key: Secret | None = PrivateAttr(default=None)
    _secret_options: list[Secret] = PrivateAttr(default=[])

    @property
    def api_key(self) -> Secret | None:
        """The key that the variable `api_key_env` held when the settings were read; None if there
        is none."""
        return self._api_key

    @property
    def usual_request(self) -> tuple[int, int]:
        """The largest numbers of texts and of characters of a request."""
        texts = USUAL_TEXTS if self.batch_texts == "auto" else self.batch_texts
        chars = USUAL_CHARS if self.batch_chars == "auto" else self.batch_chars
        return texts, chars

    @property
    def on_servers(self) -> bool:
        """Whether the model is on servers."""
        return self.kind in ON_SERVERS

    @field_validator("kind")
    @classmethod
    def _check_kind(cls, value: str) -> str:
        if value in EMBEDDER_KINDS:
            return value
        plugins = installed(EMBEDDERS)
        if value not in plugins:
            known = ", ".join(map(repr, (*EMBEDDER_KINDS, *plugins)))
            raise ValueError(f"should be {known} or another plug-in's name, once it is installed")
        return value

    @model_validator(mode="after")
    def _check_model(self) -> EmbedderSettings:
        """Check the keys against each other, and set what follows from them."""
        self._check_keys()
        # The settings are frozen, but these values are not given by the user.
        if self.url is not None:
            object.__setattr__(self, "hosts", [self.url])
        self._read_secrets()
        document, query = known_prompts(self.model) or ("", "")
        if self.document_prefix is None:
            object.__setattr__(self, "document_prefix", document)
        if self.query_prefix is None:
            object.__setattr__(self, "query_prefix", query)
        return self

    def _check_keys(self) -> None:
        if self.kind == "local" and self.model != "wordllama":
            raise ValueError(
                f"model {self.model!r} does not exist for kind 'local'; use 'wordllama' or kind"
                " 'ollama'"
            )
        if self.kind in EMBEDDER_KINDS[1:] and self.model in ("wordllama", ""):
            raise ValueError(
                f"kind {self.kind!r} needs a model: the name by which its server or library"
                " knows it"
            )
        if self.kind == "fastembed" and self.batch_texts != "auto":
            raise ValueError(
                "batch_texts is for servers: a model in the process embeds one text at a time"
            )
        if self.url is not None and "hosts" in self.model_fields_set and self.hosts != [self.url]:
            raise ValueError("url and hosts name servers twice: give one of them")
        if self.kind == "openai" and not self.model_fields_set & {"url", "hosts"}:
            raise ValueError(
                "kind 'openai' needs a server, for example url = \"http://127.0.0.1:8000/v1\""
            )

    def _read_secrets(self) -> None:
        """Read the key from its variable, and register it and secret options for redaction."""
        if self.api_key_env is not None:
            try:
                key = header_key(os.environ.get(self.api_key_env, ""))
            except ValueError as error:
                raise ValueError(f"the key in {self.api_key_env} {error}") from None
            self._api_key = Secret(key) if key else None
        self._secret_options = [
            Secret(value)
            for name, value in self.options.items()
            if isinstance(value, str) and is_secret(name)
        ]


class StoreSettings(Section):
    """`[store]`: a folder for the embedded Qdrant, or the URL of a server."""

    path: Path = Path(".rag-index/qdrant")
    """The folder of the embedded Qdrant, on a local disk, if there is no `url`. By default it is in
    `data`."""
    url: HttpUrl | None = None
    """The address of a Qdrant server, such as `http://127.0.0.1:6333`."""
    api_key: ApiKey | None = None
    """The API key of the Qdrant server."""
    timeout: Number = Field(default=60.0, gt=0)
    """The time limit of one request to the server, in seconds."""
    keep_previous: Int = Field(default=1, ge=0)
    """How many older collections of an index a rebuild keeps for `rollback`."""
    erase: bool = False
    """Whether a run ends by [erasing](deleted-data.md#erase-it) what was deleted or changed. No
    collection is then kept for `rollback`."""
    server: ServerSettings = ServerSettings()
    """How a Qdrant server is reached: [`[store.server]`](#storeserver)."""

    def secret_api_key(self) -> str | None:
        """Return the key in clear text, for the client only."""
        return self.api_key.get_secret_value() if self.api_key else None


class LedgerSettings(Section):
    """`[ledger]`: the database that records what is indexed."""

    url: DatabaseUrl = Secret("sqlite:///.rag-index/ledger.db")
    """The database of the [ledger](glossary.md): SQLite on a local disk, by default in `data`, or
    PostgreSQL if runs start on several machines."""


class ParallelSettings(Section):
    """`[parallel]`: the Dask workers of a run, and the shards of documents that each receives."""

    workers: PositiveInt | Auto = "auto"
    """How many processes embed: Dask workers in a flow, child processes in a plain run. `auto`: one
    fewer than the processors that this process may use, or as many as memory allows."""
    shard_documents: PositiveInt | Auto = "auto"
    """How many documents a worker is given at a time (a [shard](glossary.md)). `auto`: about five
    seconds of work."""
    worker_memory: PositiveInt | Auto = "auto"
    """The memory limit of one worker, in megabytes. A worker that exceeds it is ended, and its
    document is listed as failed. `auto`: no limit, but fewer workers."""
    serial: bool = False
    """Whether a run embeds in its own process, one shard after another."""
    address: DaskAddress | None = None
    """The scheduler of an existing [Dask cluster](operations.md#more-than-one-machine), such as
    `tcp://10.0.0.5:8786`; `workers` is then ignored."""


def _check_suffix(value: Path) -> Path:
    if value.suffix != ".prom":
        raise ValueError(
            "should end with .prom: it is Prometheus's text format, and `report --json` prints JSON"
        )
    return value


class RunSettings(Section):
    """`[run]`: what a run may delete and tolerate, how long it waits, and where it writes
    metrics."""

    delete_guard: Share = 0.2
    """The share of an index, or of the rows of a part, that it may lose in a day before [the delete
    guard](how-it-works.md#the-delete-guard) holds deletions back."""
    tolerate_failed: Share = 0.0
    """The share of documents that may fail while the run still counts as completed."""
    wait_for_recovery: Number = Field(default=600.0, ge=0)
    """How long a run waits for a source, an embedder or a store that does not answer, in seconds
    since the first failure. A command waits at its start only with `--wait`."""
    wait: SkipJsonSchema[Number] = Field(default=0.0, ge=0, exclude=True)
    """How long a command waits at its start, and for an embedded store in use: `--wait`."""
    metrics_file: Annotated[Path, AfterValidator(_check_suffix)] | None = None
    """The `.prom` file for [metrics of the last runs](operations.md#in-the-morning)."""


class ContextSettings(Section):
    """`[indexes.context]`: the model that writes for each chunk a sentence about its place in the
    document."""

    timeout: ClassVar[float] = 120.0  # seconds of one request for a context

    model: str = Field(min_length=1)
    """The name of a generating model on the Ollama servers, such as `llama3.2`."""
    hosts: list[HttpUrl] | None = Field(default=None, min_length=1)
    """The Ollama servers. Not set: those of `[embedder]`, or `http://127.0.0.1:11434` if it is of
    another kind."""


class GateSettings(Section):
    """`[indexes.gate]`: what a rebuilt collection must still find before it goes live."""

    queries: Path
    """The [golden file](evaluation.md#measure-with-a-golden-file)."""
    max_loss: Share = 0.02
    """How far the mean recall@10 of the queries may fall in the rebuilt collection: 0.02 is 2
    points."""


class RecencySettings(Section):
    """`recency`: how much newer documents of an index count."""

    field: str = Field(min_length=1)
    """The payload column with the time of a document."""
    half_life: str = Field(default="180d", pattern=r"^[1-9]\d{0,4} ?(h|d|w|y)$")
    """The age at which the lift is half of that of a new document, in hours, days, weeks or years:
    `180d`."""

    @property
    def seconds(self) -> float:
        """The half-life in seconds."""
        number, unit = self.half_life[:-1], self.half_life[-1]
        return float(number) * SECONDS_OF[unit]


class RetrieveSettings(Section):
    """`[retrieve]`: how several indexes are searched together."""

    timeout: Number = Field(default=10.0, gt=0)
    """The time limit of a whole search, in seconds."""
    dense_weight: Number | None = Field(default=None, ge=0, le=1)
    """The weight of meaning against words in a hybrid search; 1 is meaning alone. Not set: 0.7 or
    0.9, as [fits the model](retrieval.md#scores), and 0.4 at most for a name in source code."""
    synonyms: str | None = Field(default=None, min_length=1)
    """The [house's own words](retrieval.md#synonyms): a file, or a SELECT of two columns."""
    reranker: LoginUrl | None = Field(default=None, min_length=1)
    """What [reranks the best hits](retrieval.md#reranking): the address of a server, a model of
    fastembed, or a [plug-in](plugins.md)."""


def _check_origin(value: str) -> str:
    if not re.fullmatch(r"https?://[^/\s*@]+", value):
        raise ValueError(
            f"{value!r} is not an origin; write it as https://intranet.example.com, without a path"
        )
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
    """The address to listen on. Any but `127.0.0.1`, `::1` and `localhost` needs tokens."""
    port: Port = 8765
    """The port to listen on; 0 takes a free one."""
    tokens: list[str] = Field(default=[])
    """The tokens that may ask: the lines that `rag-index serve --new-token NAME` prints."""
    tokens_file: Path | None = None
    """A file with such lines. It is read again when it changes."""
    jwt_keys: LoginUrl | None = Field(default=None, min_length=1)
    """The https address of an issuer's public keys (JWKS), for [single
    sign-on](service.md#single-sign-on) by JWTs."""
    jwt_audience: str | None = Field(default=None, min_length=1)
    """The audience that a JWT must name. Required with `jwt_keys`."""
    jwt_issuer: str | None = Field(default=None, min_length=1)
    """The issuer that a JWT must name. Not set: any issuer whose signature is valid."""
    jwt_groups: str = Field(default="groups", min_length=1)
    """The claim that holds the groups, a list or one text. Dots lead into objects, as in
    `realm_access.roles`."""
    jwt_role: str | None = Field(default=None, min_length=1)
    """The claim with the caller's role [in the
    database](access.md#rights-that-the-database-decides). Not set: the first of `caller_roles`."""
    proxy: list[Network] = Field(default=[])
    """The addresses or networks of reverse proxies that authenticate the caller."""
    proxy_groups: str | None = Field(default=None, min_length=1)
    """The header in which such a proxy names the caller's groups, with commas."""
    hosts: list[HostName] = Field(default=[])
    """The host names under which the service is reached, such as that of a reverse proxy. It
    refuses any other."""
    cors: list[Origin] = Field(default=[])
    """The origins of other web pages that may ask from a browser, such as
    `https://intranet.example.com`."""
    query_log: Path | None = None
    """The file that keeps [what was asked](service.md#what-was-asked). Not set: nothing is kept."""

    @model_validator(mode="after")
    def _check_sign_on(self) -> ServeSettings:
        if self.jwt_keys and not self.jwt_audience:
            raise ValueError(
                "jwt_keys needs jwt_audience: else tokens that are meant for other services are"
                " good here"
            )
        if self.jwt_keys and not re.match(
            r"https://|http://(localhost[:/]|127\.|\[::1\])", self.jwt_keys
        ):
            raise ValueError(
                "jwt_keys must be an https address: on the way from another machine keys can be"
                " replaced"
            )
        if bool(self.proxy) != bool(self.proxy_groups):
            raise ValueError(
                "proxy and proxy_groups need each other: whose header counts, and which"
            )
        return self
