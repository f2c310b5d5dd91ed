"""The guard: who may ask, from which pages, how much at once and for how long; and what the log does not tell."""

import asyncio
import logging
import socket
import threading
from contextlib import closing, suppress
from urllib.parse import urlsplit

import httpx
import pytest

from rag_index.core.settings import load_settings
from rag_index.search.service import guard as guard_module
from rag_index.search.service.guard import MAX_HEADER_BYTES, Exchange, HttpMetrics
from rag_index.search.service.tokens import token_line
from tests.fakes.qdrant import FakeQdrant
from tests.search.desk import Desk
from tests.search.service.in_memory import ask, guarded
from tests.search.service.live import Live
from tests.search.service.test_http import problem
from tests.waiting import GENEROUS, eventually

TOKEN, OTHER = "rag_" + "1" * 43, "rag_" + "2" * 43  # the same in all processes, which collect tests by their names
CORS = "https://intranet.example.com"


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A filled desk on a fake server, which several services can ask at the same time."""
    with FakeQdrant() as qdrant:
        yield Desk(tmp_path_factory.mktemp("desk"), f'[store]\nurl = "{qdrant.url}"').fill()


@pytest.fixture(scope="module")
def closed(desk, tmp_path_factory):
    """A service that wants tokens, with small limits and one foreign page that may ask."""
    settings = load_settings(
        desk.config,
        serve={
            "tokens": [token_line("bo", TOKEN, ["sales"]), token_line("kim", OTHER, [])],
            "cors": [CORS],
            "hosts": ["search.example.com"],
        },
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard_module, "MAX_BODY_BYTES", 5000)
        with Live(settings) as live:
            yield live


@pytest.fixture
def anonymous(closed):
    with httpx.Client(base_url=closed.url, timeout=60) as client:
        yield client


@pytest.fixture
def bo(closed):
    with httpx.Client(base_url=closed.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as client:
        yield client


ASKED = {"query": "printer"}


@pytest.mark.parametrize(
    "path", ["/search?query=printer", "/documents/comments/1", "/indexes", "/metrics", "/nothing", "/mcp"]
)
@pytest.mark.parametrize("header", [None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"])
def test_without_a_valid_token_nothing_is_told(anonymous, path, header):
    answer = anonymous.get(path, headers={"Authorization": header} if header else {})
    problem(answer, 401)
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "printer" not in answer.text


def test_every_answer_has_security_headers_and_probes_and_the_page_need_no_token(bo, anonymous):
    for path in ("/healthz", "/readyz", "/openapi.json", "/", "/static/page.js"):
        assert anonymous.get(path).status_code == 200
    assert anonymous.get("/static/page.js").headers["cache-control"] == "no-cache"
    for answer in (bo.get("/indexes"), anonymous.get("/indexes"), bo.get("/nothing"), bo.post("/search", json={})):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_a_page_that_may_ask_gets_answers_also_to_errors(bo):
    preflight = bo.options(
        "/search", headers={"Origin": CORS, "Access-Control-Request-Method": "POST",
                            "Access-Control-Request-Headers": "authorization,content-type"}
    )  # fmt: skip
    assert preflight.status_code == 200
    for answer in (bo.get("/indexes", headers={"Origin": CORS}), bo.get("/nothing", headers={"Origin": CORS})):
        assert answer.headers["access-control-allow-origin"] == CORS
    assert "access-control-allow-credentials" not in answer.headers


def test_other_pages_may_not_ask(bo, client):
    for asking in (bo, client):
        for origin in ("https://evil.example.com", "null", "http://127.0.0.1:1"):
            answer = asking.get("/search", params=ASKED, headers={"Origin": origin})
            problem(answer, 403)
            assert "access-control-allow-origin" not in answer.headers
    own = f"http://{urlsplit(str(client.base_url)).netloc}"
    assert client.get("/search", params=ASKED, headers={"Origin": own}).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_an_image_or_a_link_of_another_page_asks_nothing(client, bo, site):
    """They have no Origin, and neither need they read the answer to keep the service busy."""
    foreign = {"Sec-Fetch-Site": site}
    for path in ("/search?query=printer", "/documents/comments/1", "/indexes", "/metrics", "/healthz"):
        problem(client.get(path, headers={**foreign, "Sec-Fetch-Mode": "no-cors"}), 403)
        problem(client.get(path, headers={**foreign, "Sec-Fetch-Mode": "navigate"}), 403)
    assert client.get("/", headers={**foreign, "Sec-Fetch-Mode": "navigate"}).status_code == 200
    problem(client.get("/", headers={**foreign, "Sec-Fetch-Mode": "no-cors"}), 403)
    for own in ("same-origin", "none"):
        assert client.get("/search", params=ASKED, headers={"Sec-Fetch-Site": own}).status_code == 200
    assert bo.get("/indexes", headers={**foreign, "Origin": CORS}).status_code == 200


def test_a_name_that_points_here_is_not_answered(client, bo):
    """A web page can have its own name point at 127.0.0.1; its requests carry that name."""
    for name in ("evil.example.com", "evil.example.com:8765", "127.0.0.1.evil.example.com", "", "[::2]:80"):
        problem(client.get("/search", params=ASKED, headers={"Host": name}), 421)
        problem(bo.get("/search", params=ASKED, headers={"Host": name}), 421)
    for name in ("localhost", "LOCALHOST:1", "127.0.0.1:99", "[::1]:99"):
        assert client.get("/search", params=ASKED, headers={"Host": name}).status_code == 200
    assert bo.get("/indexes", headers={"Host": "search.example.com"}).status_code == 200


def test_a_large_body_is_refused_before_it_is_read(bo):
    address = urlsplit(str(bo.base_url))
    with closing(socket.create_connection((address.hostname, address.port))) as connection:
        connection.sendall(
            f"POST /search HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
            "Content-Type: application/json\r\nContent-Length: 104857600\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: connection.recv(10_000), b""))  # to the end: the service closes
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in answer
    assert b"5,000 bytes" in answer


def test_a_large_body_in_parts_of_unknown_number_is_refused(bo):
    def parts():
        for _ in range(200):
            yield b"x" * 1000

    with suppress(httpx.TransportError):  # the service hangs up, perhaps while the client still writes
        problem(bo.post("/search", content=parts()), 413)
    assert bo.get("/indexes").status_code == 200


def test_a_request_that_takes_too_long_is_ended(served: Desk, qdrant, monkeypatch):
    monkeypatch.setattr(guard_module, "REQUEST_SECONDS", 0.4)
    with Live(served.settings) as live, httpx.Client(base_url=live.url, timeout=60) as client:
        eventually(lambda: client.get("/search", params=ASKED).status_code == 200, "the model is loaded")
        qdrant.break_next("/points/query", times=None, hang=3)
        assert "0.4 s" in problem(client.get("/search", params=ASKED), 504)["detail"]
        assert client.get("/healthz").status_code == 200


def test_a_client_that_hangs_up_cancels_its_search(served: Desk, qdrant):
    with Live(served.settings) as live, httpx.Client(base_url=live.url, timeout=60) as client:
        assert client.get("/search", params=ASKED).status_code == 200
        cancelled = threading.Event()
        search = live.retriever.search

        async def watched(*args, **kwargs):
            try:
                return await search(*args, **kwargs)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        live.retriever.search = watched
        qdrant.break_next("/points/query", times=None, hang=3)
        with pytest.raises(httpx.ReadTimeout):
            client.get("/search", params=ASKED, timeout=0.3)
        assert cancelled.wait(GENEROUS)
        eventually(lambda: 'status="499"' in client.get("/metrics").text, "the request is counted")


def test_the_log_has_nothing_of_a_query(client, desk, caplog):
    with caplog.at_level(logging.DEBUG):
        client.get("/search", params={"query": "my secret illness"})
        client.post("/search", json={"query": "my secret illness", "filter": {"author": "secretperson"}})
        client.get("/search", params={"query": "my secret illness", "indexes": "nothing"})
    text = "\n".join(
        record.getMessage() for record in caplog.records if record.name.startswith(("rag_index", "uvicorn"))
    )
    assert "GET /search 200" in text
    assert "POST /search 200" in text
    assert "secret" not in text


def test_an_unexpected_error_is_a_problem_and_tells_nothing(desk, caplog):
    with caplog.at_level(logging.INFO), Live(desk.settings) as live:

        async def broken(*_, **__):
            raise ValueError("my secret illness")

        live.retriever.search = broken
        answer = httpx.get(f"{live.url}/search", params=ASKED, timeout=60)
        problem(answer, 500)
    assert "secret" not in answer.text + caplog.text
    assert "unexpected ValueError in" in caplog.text


@pytest.mark.parametrize(
    ("client", "headers", "who"),
    [
        (("10.0.0.7", 1), [(b"x-forwarded-for", b"1.1.1.1, 8.8.8.8")], "address 8.8.8.8"),
        (("10.0.0.7", 1), [(b"x-forwarded-for", b"1.1.1.1"), (b"x-forwarded-for", b"9.9.9.9")], "address 9.9.9.9"),
        (("127.0.0.1", 1), [], "address 127.0.0.1 1"),
        (("93.184.216.34", 1), [(b"x-forwarded-for", b"8.8.8.8")], "address 93.184.216.34"),
    ],
)
def test_a_proxy_in_a_private_network_names_the_address_and_nobody_else_does(client, headers, who):
    scope = {"type": "http", "client": client, "headers": headers}
    assert Exchange(scope, None, max_body=0, metrics=HttpMetrics()).who == who


async def ok(_) -> int:
    return 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"x", b"y" * (MAX_HEADER_BYTES - 100))], 200),
        ([(b"x", b"y" * MAX_HEADER_BYTES)], 431),
        ([(b"content-length", b"2"), (b"transfer-encoding", b"chunked")], 400),
    ],
)
def test_first_lines_that_are_too_long_or_mean_two_things_are_refused(headers, status):
    assert asyncio.run(ask(guarded(ok), headers=headers)) == status


def test_a_caller_has_a_share_of_the_places_and_others_have_theirs(desk):
    async def answer(scope) -> int:
        if scope["path"] == "/long":
            await asyncio.Event().wait()
        return 200

    async def main() -> None:
        held = [asyncio.ensure_future(ask(guard, "/long", headers=bo)) for _ in range(8)]
        await asyncio.sleep(0.01)
        assert [one.result() for one in held if one.done()] == [503] * 6, "a quarter is for one caller"
        assert await ask(guard, headers=bo) == 503
        assert await ask(guard, headers=kim) == 200
        for one in held:
            one.cancel()

    bo, kim = ([(b"authorization", f"Bearer {token}".encode())] for token in (TOKEN, OTHER))
    guard = guarded(answer, max_requests=8, tokens=[token_line("bo", TOKEN, []), token_line("kim", OTHER, [])])
    asyncio.run(main())
