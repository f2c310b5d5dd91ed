"""Addresses of a Qdrant server as people have them: without a port, under a path, or those of its dashboard."""

import socket
import threading
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest

from rag_index.components.stores.server import ServerStore, link
from rag_index.errors import RagIndexError, StoreUnavailable
from tests.fakes.qdrant import FakeQdrant
from tests.fakes.qdrant_grpc import FakeQdrantGrpc
from tests.ports import free_port
from tests.waiting import eventually


@pytest.fixture
def ports(monkeypatch):
    """Return ports in place of Qdrant's own and that of http, which a test cannot have."""
    own, web = free_port(2), free_port()
    monkeypatch.setattr(link, "REST_PORT", own)
    monkeypatch.setattr(link, "WEB_PORTS", {"http": web})
    return own, web


@contextmanager
def website(port=0, status=200):
    """Answer each request with a page, as a proxy does that knows no Qdrant."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "14")
            self.end_headers()
            self.wfile.write(b"<h1>Hello</h1>")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def opened(url, **more):
    return closing(ServerStore(url, patience=0, timeout=5, **more))


def said_of(url, error: type[RagIndexError] = StoreUnavailable):
    with opened(url) as store, pytest.raises(error) as raised:
        store.names()
    return str(raised.value)


def test_a_server_without_a_port_is_asked_at_qdrants_own_with_grpc_beside_it(ports):
    own, web = ports
    with (
        website(web),
        FakeQdrant(port=own) as qdrant,
        FakeQdrantGrpc(qdrant, port=own + 1),
        opened("http://127.0.0.1") as store,
    ):
        store.create("c", 4, {})
        assert store.fallback() == ""
    assert "GRPC Create" in qdrant.seen


@pytest.mark.parametrize("at_own", ["nothing", "silence", "page"])
def test_a_server_behind_a_proxy_is_found_at_the_port_of_its_scheme(ports, at_own):
    own, web = ports
    others = {"nothing": socket.socket, "silence": lambda: socket.create_server(("127.0.0.1", own)),
              "page": lambda: website(own, 404)}  # fmt: skip
    with others[at_own](), FakeQdrant(port=web), opened("http://127.0.0.1") as store:
        store.create("c", 4, {})
        assert store.names() == {"c"}
        assert "does not tell where Qdrant answers gRPC" in store.fallback()


def test_both_ports_are_named_if_no_qdrant_answers(ports):
    own, web = ports
    said = said_of("http://127.0.0.1")
    assert f"port {own} and port {web}: " in said
    assert "Connection refused" in said
    with website(web, 502):
        said = said_of("http://127.0.0.1")
    assert f"(port {own}: [Errno 111] Connection refused; port {web}: answered 502: Hello)" in said


def test_a_connection_that_is_idle_is_closed_and_opened_again():
    """The threads of gRPC wake up four times a second as long as a client is open."""

    def is_connected():
        return any(one.raddr and one.raddr.port == grpc.port for one in psutil.Process().net_connections("tcp"))

    with FakeQdrant() as qdrant, FakeQdrantGrpc(qdrant) as grpc:
        now, asking = [0.0], link.Link(qdrant.url, patience=0, grpc_port=grpc.port)
        asking.clock = lambda: now[0]
        with closing(asking):
            assert asking.ask(link.names_of) == set()
            now[0] = link.IDLE_SECONDS / 2
            asking.let_go()
            assert is_connected()
            now[0] *= 3
            asking.let_go()
            eventually(lambda: not is_connected())
            assert asking.ask(link.names_of) == set()
            assert is_connected()
