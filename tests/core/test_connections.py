"""What is said of a server or database that cannot be used: for its TLS, its address, a proxy, its
driver or a lock."""

import asyncio
import os
import re
import shutil
import sqlite3
import ssl
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import jwt
import pytest
from sqlalchemy.engine import URL, make_url

from rag_index.components.embedders import open_embedder
from rag_index.components.sources.engine import errors_as_ours, open_read_only
from rag_index.components.stores.server.link import Link, ServerAccess
from rag_index.core import connections
from rag_index.core.database import first_line, set_pragmas
from rag_index.core.settings import EmbedderSettings
from rag_index.errors import RagIndexError, SettingsError, install_command
from rag_index.search.frameworks import Service
from rag_index.search.rerankers import RerankServer
from rag_index.search.service.tokens import IssuerKeys
from tests.fakes.qdrant_grpc import FakeQdrantGrpc
from tests.fakes.tls import PrivateAuthority, TlsFront, TlsServer
from tests.live.postgres import PostgresServer, find_postgres, server_user
from tests.project import SETTINGS

AWAY = ("running", "accepts no connection", "start it")
CERTIFICATES = {
    "of nobody who is known": (
        {},
        False,
        ["is not trusted (self-signed certificate)", "set SSL_CERT_FILE"],
    ),
    "of another name": (
        {"name": "other.example"},
        True,
        ["not valid for 'localhost'", "name of the certificate"],
    ),
    "expired": ({"days": -1}, True, ["certificate has expired", "renew it"]),
    "demanded of the client": ({"client": True}, True, ["demands a certificate of its client"]),
}


def embedder(kind):
    def ask(url):
        opened = open_embedder(EmbedderSettings(kind=kind, model="m", hosts=[url], timeout=5))
        with closing(opened):
            opened.identity()

    return ask


def issuer(url):
    asyncio.run(IssuerKeys(url).verify(jwt.encode({"sub": "ann"}, "k" * 32)))


CLIENTS = {
    "ollama": embedder("ollama"),
    "openai": embedder("openai"),
    "qdrant": lambda url: Link(ServerAccess(url, patience=0, grpc_port=0)).call(
        lambda client: client.get_collections()
    ),
    "reranker": lambda url: RerankServer(url, 5.0).score("a query", ["a text"]),
    "service": lambda url: Service(url, timeout=5.0).search_sync("a query"),
    "issuer": issuer,
}


@pytest.fixture(params=CLIENTS)
def said_of(request, caplog):
    """Return a function that asks an address in one of the ways that there are, and returns what is
    said of it."""

    def ask(url):
        with pytest.raises(RagIndexError) as error:
            CLIENTS[request.param](url)
        return f"{error.value} {caplog.text if request.param == 'issuer' else ''}"

    return ask


@pytest.fixture
def trusting(monkeypatch):
    """Return a function that has this process trust a certificate."""

    def trust(file):
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        connections.tls_context.cache_clear()

    yield trust
    monkeypatch.undo()
    connections.tls_context.cache_clear()


def is_told(message, *words):
    assert all(word in message for word in words), message
    assert not any(word in message for word in AWAY), message


@pytest.mark.parametrize("which", CERTIFICATES)
def test_a_certificate_that_cannot_be_used_is_named(said_of, tmp_path, trusting, which):
    made, known, words = CERTIFICATES[which]
    with TlsServer(tmp_path, **made) as server:
        if known:
            trusting(server.certificate)
        is_told(said_of(server.url), *words)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_of_authorities_that_cannot_be_used_is_named(said_of, tmp_path, trusting, content):
    file = tmp_path / "authorities.pem"
    if content:
        file.write_text(content)
    trusting(file)
    is_told(
        said_of("https://localhost:1"),
        f"SSL_CERT_FILE={file} cannot be used",
        "let it name a file of cert",
    )


def test_ollama_and_qdrant_behind_a_private_authority(project, fake, qdrant, tmp_path, request):
    authority, stack = PrivateAuthority(tmp_path), ExitStack()
    request.addfinalizer(stack.close)
    ports = [
        urlsplit(fake.url).port,
        urlsplit(qdrant.url).port,
        stack.enter_context(FakeQdrantGrpc(qdrant)).port,
    ]
    embedder, store, by_grpc = (
        stack.enter_context(TlsFront(authority, port)).port for port in ports
    )
    settings = (
        f'[embedder]\nkind = "ollama"\nmodel = "{fake.model}"\nhosts = ["https://localhost:{embedder}"]\n'
        f'[store]\nurl = "https://localhost:{store}"\n[store.server]\ngrpc_port = {by_grpc}\n'
    )
    project.write_settings(SETTINGS.format(extra=settings))
    project.fill(3)
    refused = project.cli("index-all")
    assert refused.returncode == 1
    said = [line for line in refused.stdout.splitlines() if "certificate" in line]
    assert len(said) == 1, refused.stdout + refused.stderr
    assert f"https://localhost:{store} cannot be reached: its certificate is not trusted" in said[0]
    assert "set SSL_CERT_FILE to a file with that of its authority" in said[0]
    trusting = {"SSL_CERT_FILE": str(authority.certificate)}
    assert "3 documents indexed" in project.cli("index-all", **trusting).stdout
    assert "GRPC Upsert" in qdrant.seen, "gRPC trusts whom REST trusts"
    assert project.cli("search", "printer", **trusting).returncode == 0
    assert "notes" in project.cli("status", **trusting).stdout


@pytest.fixture
def postgres_by_tls(tmp_path):
    """A private authority, and the URL of a database whose server has a certificate of it."""
    programs = find_postgres()
    if not isinstance(programs, Path):
        pytest.skip(programs)
    authority, (user, _) = PrivateAuthority(tmp_path), server_user("postgres")
    with TemporaryDirectory() as folder:
        file = shutil.copy(authority.sign(), folder)
        for path, mode in ((folder, 0o700), (file, 0o600)):
            Path(path).chmod(mode)
            os.chown(path, user.pw_uid, user.pw_gid)
        with PostgresServer(
            programs, "ssl=on", f"ssl_cert_file={file}", f"ssl_key_file={file}"
        ) as server:
            yield authority, server.url("postgres").set(host="localhost")


def why_refused(url, **tls):
    with pytest.raises(RagIndexError) as error:
        connects(url, **tls)
    return str(error.value)


def connects(url, **tls):
    opened = open_read_only(url.update_query_dict(tls))
    try:
        with errors_as_ours(opened.url, "notes"), opened.connect() as connection:
            return connection.exec_driver_sql("SELECT 1").scalar() == 1
    finally:
        opened.dispose()


def test_postgresql_behind_a_private_authority(postgres_by_tls, monkeypatch):
    authority, url = postgres_by_tls
    for trusted in ("", "/etc/ssl/no-such-file.pem"):
        said = why_refused(url, sslmode="verify-full", sslrootcert=trusted)
        assert (
            "name the file of its authority's certificate in [source] url (sslrootcert=FILE)"
            in said
        )
    assert connects(url, sslmode="verify-full", sslrootcert=str(authority.certificate))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    assert connects(url, sslmode="verify-full", sslrootcert="system")


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_of_tls_for_mariadb_that_cannot_be_used_is_named(tmp_path, content):
    file = tmp_path / "authority.pem"
    if content:
        file.write_text(content)
    said = why_refused(
        make_url("mariadb+pymysql://reader:s3cret@localhost:1/desk"), ssl_ca=str(file)
    )
    assert f"correct ssl_ca={file}" in said


def test_https_where_http_is_spoken_and_the_reverse_are_named(said_of, tmp_path):
    with TlsServer() as server:
        is_told(said_of(server.url), "speaks no TLS", "write http://")
    with TlsServer(tmp_path) as server:
        is_told(said_of(server.url.replace("https", "http")), "write https://")


def test_a_proxy_that_is_down_is_named(said_of, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://user:s3cret@127.0.0.1:1")
    said = said_of("https://search.invalid")
    assert "the proxy http://127.0.0.1:1 that the environment names accepts no connection" in said
    assert "put search.invalid into NO_PROXY" in said
    assert "s3cret" not in said


def test_an_end_that_breaks_off_is_no_fault_of_tls():
    assert (
        connections.why_failed(
            ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), "https://gpu"
        )
        == ""
    )


def test_an_unknown_database_names_what_to_install_or_to_write():
    for url, said in (
        (
            "oracle://u@h/d",
            "`pip install 'oracledb'` installs one, and the URL begins with oracle+oracledb",
        ),
        ("snowflake://u@h/d", "`pip install 'snowflake-sqlalchemy'` installs one"),
        ("sqlit:///x", "did you mean sqlite"),
        ("notadb://x", "install the SQLAlchemy dialect that the URL names"),
        ("mysql+mysqldb://u:s3cret@h/d", f"`{install_command('mariadb')}` installs"),
        ("postgresql+asyncpg://u:s3cret@h/d", "'postgresql+asyncpg' is an asynchronous driver"),
    ):
        with pytest.raises(SettingsError, match=re.escape(said)) as caught:
            open_read_only(make_url(url))
        assert "s3cret" not in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("password", ["a", "o", "s3cret", "p@ss word"])
def test_a_password_is_masked_where_it_stands_and_garbles_nothing(password):
    url = URL.create("postgresql", "bob", password, "h", database="d")
    full = f"no route to {url.render_as_string(hide_password=False)} from a host"
    assert first_line(OSError(full), url) == "no route to postgresql://bob:***@h/d from a host"


def test_the_switch_to_a_write_ahead_log_waits_for_a_process_that_creates_the_file(tmp_path):
    writer = sqlite3.connect(tmp_path / "new.db", isolation_level=None, check_same_thread=False)
    writer.execute("CREATE TABLE made (a)")
    writer.execute("BEGIN IMMEDIATE")
    connection = sqlite3.connect(tmp_path / "new.db")
    with pytest.raises(
        sqlite3.OperationalError, match="locked"
    ):  # what SQLite does by itself, at once
        connection.execute("PRAGMA busy_timeout=30000").execute("PRAGMA journal_mode=WAL")
    threading.Timer(0.5, writer.execute, ["COMMIT"]).start()
    set_pragmas(connection, ("journal_mode=WAL",))
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
    writer.close()
