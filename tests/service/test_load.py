"""What a service withstands: large bodies, many connections, and clients that hang up or send nothing."""

from __future__ import annotations

import resource
import socket
from contextlib import ExitStack, closing
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from rag_index.settings import load_settings
from tests.service.live import Live
from tests.service.test_http import problem
from tests.service.test_server import serving
from tests.waiting import eventually

ASKED = {"query": "printer"}
MB = 1_000_000
LINE = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def service(desk):
    """A service in a process of its own, warm; all requests here come from one address."""
    with serving(desk, RAG_INDEX_SERVE__RATE_LIMIT="0") as (process, url):
        assert httpx.get(f"{url}/search", params=ASKED, timeout=60).status_code == 200
        yield psutil.Process(process.pid), url


def connect(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname, address.port), timeout=60)


def send_all(connection: socket.socket, parts) -> bytes:
    """Send until the service hangs up, and return what it answered, which may be cut off."""
    answer = b""
    try:
        for part in parts:
            connection.sendall(part)
    except OSError:
        pass
    try:
        while part := connection.recv(10_000):
            answer += part
    except OSError:
        pass
    return answer


@pytest.mark.long
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_100_mb_is_not_taken(service, chunked):
    process, url = service
    before = process.memory_info().rss
    with closing(connect(url)) as connection:
        if chunked:
            parts = (b"f4240\r\n" + b"x" * MB + b"\r\n" for _ in range(100))
            answer = send_all(connection, [LINE + b"Transfer-Encoding: chunked\r\n\r\n", *parts])
        else:
            parts = (b"x" * MB for _ in range(100))
            answer = send_all(connection, [LINE + b"Content-Length: 100000000\r\n\r\n", *parts])
    assert answer == b"" or answer.startswith(b"HTTP/1.1 413 ")
    assert process.memory_info().rss - before < 20 * MB
    assert httpx.get(f"{url}/search", params=ASKED, timeout=60).status_code == 200


@pytest.mark.long
def test_a_thousand_open_connections_do_not_stop_the_others(service):
    process, url = service
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most < 2500:
        pytest.skip("needs 2,500 open files")
    before = process.memory_info().rss
    with ExitStack() as stack:
        for number in range(1000):
            connection = stack.enter_context(closing(connect(url)))
            if number % 3 == 1:
                connection.sendall(b"GET /search?query=x HTT")  # and no more
            elif number % 3 == 2:
                connection.sendall(LINE + b"Content-Length: 50\r\n\r\n{")
        eventually(lambda: len(process.net_connections()) > 1000, "all are open")
        for _ in range(5):
            assert httpx.get(f"{url}/search", params=ASKED, timeout=60).status_code == 200
    assert process.memory_info().rss - before < 100 * MB
    eventually(lambda: len(process.net_connections()) < 20, "they are closed")
    assert httpx.get(f"{url}/search", params=ASKED, timeout=60).status_code == 200


def test_a_busy_service_says_so_at_once(served, qdrant):
    settings = load_settings(served.config, serve={"max_requests": 2})
    with Live(settings) as live, httpx.Client(base_url=live.url, timeout=60) as client:
        assert client.get("/search", params=ASKED).status_code == 200
        fault = qdrant.break_next("/points/query", times=None, hang=2)
        with closing(connect(live.url)) as first, closing(connect(live.url)) as second:
            for connection in (first, second):
                connection.sendall(b"GET /search?query=mailbox HTTP/1.1\r\nHost: localhost\r\n\r\n")
            eventually(lambda: fault.met >= 2, "both search")
            answer = client.get("/search", params=ASKED)
            assert "busy" in problem(answer, 503)["detail"]
            assert answer.headers["retry-after"]
