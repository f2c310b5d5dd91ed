"""What a service withstands: many connections, and clients that hang up or send nothing."""

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


def connect(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname, address.port), timeout=60)


@pytest.mark.long
def test_a_thousand_open_connections_do_not_stop_the_others(desk):
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most < 2500:
        pytest.skip("needs 2,500 open files")
    with serving(desk, RAG_INDEX_SERVE__RATE_LIMIT="0") as (started, url):

        def answers() -> bool:
            return httpx.get(f"{url}/search", params=ASKED, timeout=60).status_code == 200

        assert answers()
        process = psutil.Process(started.pid)
        before = process.memory_info().rss
        with ExitStack() as stack:
            for number in range(1000):
                connection = stack.enter_context(closing(connect(url)))
                if number % 3 == 1:
                    connection.sendall(b"GET /search?query=x HTT")  # and no more
                elif number % 3 == 2:
                    connection.sendall(b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{")
            eventually(lambda: len(process.net_connections()) > 1000, "all are open")
            assert all(answers() for _ in range(5))
        assert process.memory_info().rss - before < 100_000_000
        eventually(lambda: len(process.net_connections()) < 20, "they are closed")
        assert answers()


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
