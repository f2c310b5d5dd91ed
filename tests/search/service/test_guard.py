"""The guard: who may ask, by which tokens, from which pages, how much and for how long; what the
log does not tell."""

import asyncio
import logging
import re
import socket
import threading
from contextlib import closing
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import httpx
import pytest

from rag_index.core.settings import ServeSettings, load_settings
from rag_index.errors import NotAllowed, SettingsError, TerminalError
from rag_index.search import Caller
from rag_index.search.service import SearchService
from rag_index.search.service import guard as guard_module
from rag_index.search.service import tokens as tokens_module
from rag_index.search.service.guard import MAX_HEADER_BYTES, Exchange, HttpMetrics
from rag_index.search.service.server import listen, url_of
from rag_index.search.service.tokens import (
    TokenRegister,
    allowed_hosts,
    new_token,
    require_tokens,
    token_line,
)
from tests.docs.pages import page
from tests.fakes.qdrant import FakeQdrant
from tests.search.desk import Desk
from tests.search.service.in_memory import ask, guarded
from tests.search.service.live import Live
from tests.search.service.live import asking as client_of
from tests.search.service.test_http import problem
from tests.waiting import GENEROUS, Clock, eventually

TOKEN, OTHER = (
    "rag_" + "1" * 43,
    "rag_" + "2" * 43,
)  # the same in all processes, which collect tests by their names
CORS = "https://intranet.example.com"
SENT_AND_READ = re.compile(r"^- (?:They may send|They may read) (.+)$", re.MULTILINE)
ASKED = {"query": "printer"}
LINE = token_line("bo", new_token(), [])
OTHERS = [
    "0.0.0.0",
    "::",
    "192.168.1.2",
    "search.example.com",
    "localhost.example.com",
    "::ffff:10.0.0.1",
]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A filled desk on a fake server, which several services can ask at the same time."""
    with FakeQdrant() as qdrant:
        yield Desk(tmp_path_factory.mktemp("desk"), f'[store]\nurl = "{qdrant.url}"').fill()


@pytest.fixture(scope="module")
def closed(desk, tmp_path_factory):
    """A service that wants tokens, with small limits and one foreign page that may ask."""
    tokens = [token_line("bo", TOKEN, ["sales"]), token_line("kim", OTHER, [])]
    settings = load_settings(
        desk.config, serve={"tokens": tokens, "cors": [CORS], "hosts": ["search.example.com"]}
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
    with httpx.Client(
        base_url=closed.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60
    ) as client:
        yield client


@pytest.mark.parametrize(
    "path", ["/search?query=printer", "/documents/comments/1", "/indexes", "/metrics", "/x", "/mcp"]
)
@pytest.mark.parametrize(
    "header", [None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"]
)
def test_without_a_valid_token_nothing_is_told(anonymous, path, header):
    answer = anonymous.get(path, headers={"Authorization": header} if header else {})
    problem(answer, 401)
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "printer" not in answer.text


def test_every_answer_has_security_headers_and_probes_and_the_page_need_no_token(bo, anonymous):
    for path in ("/healthz", "/readyz", "/openapi.json", "/", "/static/page.js"):
        assert anonymous.get(path).status_code == 200
    assert anonymous.get("/static/page.js").headers["cache-control"] == "no-cache"
    for answer in (
        bo.get("/indexes"),
        anonymous.get("/indexes"),
        bo.get("/nothing"),
        bo.post("/search", json={}),
    ):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_a_page_that_may_ask_gets_answers_also_to_errors(bo):
    asked = {"Method": "POST", "Headers": "authorization,content-type"}
    preflight = {
        "Origin": CORS,
        **{f"Access-Control-Request-{name}": value for name, value in asked.items()},
    }
    assert bo.options("/search", headers=preflight).status_code == 200
    for answer in (
        bo.get("/indexes", headers={"Origin": CORS}),
        bo.get("/nothing", headers={"Origin": CORS}),
    ):
        assert answer.headers["access-control-allow-origin"] == CORS
    assert "access-control-allow-credentials" not in answer.headers


def names_in(header):
    return {name.strip().lower() for name in header.split(",")}


def preflight(client, *headers):
    return client.options(
        "/search",
        headers={
            "Origin": CORS,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": ",".join(headers),
        },
    )


def test_a_page_that_may_ask_sends_and_reads_the_headers_that_are_documented_and_no_others(
    bo, anonymous
):
    sent, read = (
        {*re.findall(r"`([^`]+)`", line)} for line in SENT_AND_READ.findall(page("service"))
    )
    assert {"Authorization", "Content-Type", "Rag-Index-Query", "MCP-Protocol-Version"} <= sent
    assert read == {"Retry-After", "WWW-Authenticate"}
    answer = preflight(bo, *sent)
    assert answer.status_code == 200
    always = {"accept", "accept-language", "content-language"}
    assert names_in(answer.headers["access-control-allow-headers"]) - always == {
        name.lower() for name in sent
    }
    refused = anonymous.get("/indexes", headers={"Origin": CORS})
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"]
    assert names_in(refused.headers["access-control-expose-headers"]) == {
        name.lower() for name in read
    }
    for other in ("X-Forwarded-Groups", "X-Forwarded-For", "Cookie", "Mcp-Session-Id"):
        assert preflight(bo, other).status_code == 400


@pytest.mark.parametrize("header", ["X-Forwarded-Groups", "rag-index-query"])
def test_no_page_sends_the_header_in_which_a_proxy_names_groups(desk, header):
    serve = {
        "proxy": ["127.0.0.1"],
        "proxy_groups": header,
        "cors": [CORS],
        "hosts": ["search.example.com"],
    }
    with (
        Live(load_settings(desk.config, serve=serve)) as live,
        httpx.Client(base_url=live.url, timeout=60) as client,
    ):
        assert preflight(client, "MCP-Protocol-Version").status_code == 200
        answer = preflight(client, header)
        assert answer.status_code == 400
        assert header.lower() not in names_in(answer.headers["access-control-allow-headers"])


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
    for path in (
        "/search?query=printer",
        "/documents/comments/1",
        "/indexes",
        "/metrics",
        "/healthz",
    ):
        problem(client.get(path, headers={**foreign, "Sec-Fetch-Mode": "no-cors"}), 403)
        problem(client.get(path, headers={**foreign, "Sec-Fetch-Mode": "navigate"}), 403)
    assert client.get("/", headers={**foreign, "Sec-Fetch-Mode": "navigate"}).status_code == 200
    problem(client.get("/", headers={**foreign, "Sec-Fetch-Mode": "no-cors"}), 403)
    for own in ("same-origin", "none"):
        assert (
            client.get("/search", params=ASKED, headers={"Sec-Fetch-Site": own}).status_code == 200
        )
    assert bo.get("/indexes", headers={**foreign, "Origin": CORS}).status_code == 200


def test_a_name_that_points_here_is_not_answered(client, bo):
    """A web page can have its own name point at 127.0.0.1; its requests carry that name."""
    for name in (
        "evil.example.com",
        "evil.example.com:8765",
        "127.0.0.1.evil.example.com",
        "",
        "[::2]:80",
    ):
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
        answer = b"".join(
            iter(lambda: connection.recv(10_000), b"")
        )  # to the end: the service closes
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in answer
    assert b"5,000 bytes" in answer


def test_a_request_that_takes_too_long_is_ended(served, qdrant, monkeypatch):
    monkeypatch.setattr(guard_module, "REQUEST_SECONDS", 0.4)
    with Live(served.settings) as live, httpx.Client(base_url=live.url, timeout=60) as client:
        eventually(
            lambda: client.get("/search", params=ASKED).status_code == 200, "the model is loaded"
        )
        qdrant.break_next("/points/query", times=None, hang=3)
        assert "0.4 s" in problem(client.get("/search", params=ASKED), 504)["detail"]
        assert client.get("/healthz").status_code == 200


def test_a_client_that_hangs_up_cancels_its_search(served, qdrant):
    with Live(served.settings) as live, httpx.Client(base_url=live.url, timeout=60) as client:
        assert client.get("/search", params=ASKED).status_code == 200
        cancelled, search = threading.Event(), live.retriever.search

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
        client.post(
            "/search", json={"query": "my secret illness", "filter": {"author": "secretperson"}}
        )
        client.get("/search", params={"query": "my secret illness", "indexes": "nothing"})
    text = "\n".join(
        one.getMessage() for one in caplog.records if one.name.startswith(("rag_index", "uvicorn"))
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


def test_a_proxy_in_a_private_network_names_the_address_and_nobody_else_does():
    for address, forwarded, who in (
        ("10.0.0.7", [b"1.1.1.1, 8.8.8.8"], "address 8.8.8.8"),
        ("10.0.0.7", [b"1.1.1.1", b"9.9.9.9"], "address 9.9.9.9"),
        ("127.0.0.1", [], "address 127.0.0.1 1"),
        ("93.184.216.34", [b"8.8.8.8"], "address 93.184.216.34"),
    ):
        scope = {
            "type": "http",
            "client": (address, 1),
            "headers": [(b"x-forwarded-for", one) for one in forwarded],
        }
        assert Exchange(scope, None, max_body=0, metrics=HttpMetrics()).who == who


async def ok(_) -> int:
    return 200


def test_first_lines_that_are_too_long_or_mean_two_things_are_refused():
    for headers, status in (
        ([(b"x", b"y" * (MAX_HEADER_BYTES - 100))], 200),
        ([(b"x", b"y" * MAX_HEADER_BYTES)], 431),
        ([(b"content-length", b"2"), (b"transfer-encoding", b"chunked")], 400),
    ):
        assert asyncio.run(ask(guarded(ok), headers=headers)) == status


def test_a_caller_has_a_share_of_the_places_and_others_have_theirs(desk):
    async def answer(scope):
        if scope["path"] == "/long":
            await asyncio.Event().wait()
        return 200

    async def main():
        held = [asyncio.ensure_future(ask(guard, "/long", headers=bo)) for _ in range(8)]
        await asyncio.sleep(0.01)
        assert [one.result() for one in held if one.done()] == [503] * 6, (
            "a quarter is for one caller"
        )
        assert await ask(guard, headers=bo) == 503
        assert await ask(guard, headers=kim) == 200
        for one in held:
            one.cancel()

    bo, kim = ([(b"authorization", f"Bearer {token}".encode())] for token in (TOKEN, OTHER))
    guard = guarded(
        answer, max_requests=8, tokens=[token_line("bo", TOKEN, []), token_line("kim", OTHER, [])]
    )
    asyncio.run(main())


def register(*tokens: str) -> TokenRegister:
    return TokenRegister(ServeSettings(tokens=tokens))


def written(folder, *lines: str) -> TokenRegister:
    (folder / "tokens").write_text("".join(f"{line}\n" for line in lines))
    return TokenRegister(ServeSettings(tokens_file=folder / "tokens"))


def test_a_token_stands_for_its_name_and_groups_and_every_hash_is_compared(monkeypatch):
    token = new_token()
    line = token_line("Bo Åström", token, ["sales team", "a,b"])
    assert token not in line
    assert "," not in line  # the environment divides lists at commas
    known = register(line)
    assert known.caller(token) == Caller("Bo Åström", frozenset({"sales team", "a,b"}))
    assert [known.caller(other) for other in (new_token(), "", "\ud800")] == [None] * 3
    compared = []
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: compared.append(a) or a == b)
    tokens = [new_token() for _ in range(3)]
    known = register(*(token_line(str(n), token, []) for n, token in enumerate(tokens)))
    assert known.caller(tokens[0]).name == "0"
    assert len(compared) == 3, "the time of an answer does not tell where a token stands"


@pytest.mark.parametrize("group", ["%2A", "sales*", "*x"])
def test_a_group_whose_name_has_an_asterisk_does_not_stand_for_all_documents(group):
    token = new_token()
    known = register(f"{token_line('bo', token, [])} {group}")
    assert known.caller(token) == Caller("bo", frozenset({unquote(group)}))
    assert register(f"{token_line('bo', token, [])} {group} *").caller(token).sees_all


def test_nobody_claims_groups_to_learn_why_a_document_is_not_found():
    service = SearchService(SimpleNamespace(serve=ServeSettings()), retriever=None)
    for caller in (Caller(local=True), Caller("bo", frozenset({"sales"}))):
        with pytest.raises(NotAllowed):
            asyncio.run(service.why(caller, "printer", "comments/1", groups=["board"]))


def test_a_file_has_comments_and_its_changes_are_in_force_at_once(tmp_path):
    clock, token = Clock(), new_token()
    path = tmp_path / "tokens"
    path.write_text(f"# who may ask\n\n{token_line('bo', token, ['sales'])}\n")
    known = TokenRegister(ServeSettings(tokens_file=path), clock=clock)
    assert known.caller(token) == Caller("bo", frozenset({"sales"}))
    path.write_text("# nobody\n")
    clock.now += 2
    assert known.caller(token) is None
    assert known.required  # an emptied file does not open the service
    assert TokenRegister(ServeSettings(tokens_file=path)).required
    path.unlink()
    clock.now += 2
    assert known.caller(token) is None
    with pytest.raises(SettingsError, match="cannot be read"):
        known.check()


def test_a_damaged_tokens_file_closes_the_service_and_does_not_let_it_be_restarted(
    desk, tmp_path, monkeypatch
):
    """However many requests there are, until the file is corrected."""
    monkeypatch.setattr(tokens_module, "FILE_CHECK_SECONDS", 0.0)
    path = tmp_path / "tokens"
    path.write_text(token_line("bo", TOKEN, ["sales"]))
    serve = {"tokens": [token_line("kim", OTHER, [])], "tokens_file": path}
    bo, kim = ({"Authorization": f"Bearer {token}"} for token in (TOKEN, OTHER))
    with client_of(load_settings(desk.config, serve=serve)) as client:

        def statuses():
            requests = (("/healthz", {}), ("/readyz", {}), ("/indexes", bo), ("/indexes", kim))
            return [client.get(route, headers=headers).status_code for route, headers in requests]

        assert statuses() == [200, 200, 200, 200]
        whole = path.read_text()
        path.write_text("bo sha256:12")
        for _ in range(2):
            assert statuses() == [200, 503, 503, 200]
            assert client.get("/indexes").status_code == 401
        for route, headers in (("/readyz", {}), ("/indexes", bo)):
            answer = client.get(route, headers=headers)
            assert "the tokens cannot be read" in problem(answer, 503)["detail"]
            assert int(answer.headers["retry-after"]) > 0
        path.write_text(whole)
        assert statuses() == [200, 200, 200, 200]


@pytest.mark.parametrize(
    "line", ["rag_abcdefgh", "bo sha256:12", "bo " + "0" * 64, "bo sha1:" + "0" * 64]
)
def test_a_line_that_is_none_is_named_but_not_repeated(tmp_path, line):
    for make in (lambda: written(tmp_path, line), lambda: register(line)):
        with pytest.raises(
            SettingsError, match=r"line 1 is not NAME sha256:HASH.*--new-token"
        ) as raised:
            make()
        assert line not in str(raised.value)


def test_no_token_has_the_name_of_a_jwt():
    """They would be one in the log, and share a rate."""
    for name in ("jwt:ann", "jwt%3Aann"):
        with pytest.raises(SettingsError, match="line 1 has a name that begins with jwt:"):
            register(token_line("ann", new_token(), []).replace("ann", name, 1))


def test_tokens_are_needed_wherever_others_could_ask_and_without_them_only_names_of_this_machine_are_answered(
    tmp_path,
):
    for host in ("127.0.0.1", "::1", "localhost"):
        require_tokens(ServeSettings(host=host), register())
    for host in OTHERS:
        require_tokens(ServeSettings(host=host), register(LINE))
        for none in (register(), written(tmp_path)):  # a file without tokens
            with pytest.raises(
                SettingsError, match="needs tokens: make a token with `rag-index serve --new-token"
            ):
                require_tokens(ServeSettings(host=host), none)
    with pytest.raises(SettingsError, match=r"search\.example\.com.*needs tokens"):
        require_tokens(ServeSettings(hosts=["search.example.com"]), register())
    assert "evil.example.com" not in allowed_hosts(ServeSettings(), register())
    assert "[::1]" in allowed_hosts(ServeSettings(), register())
    assert allowed_hosts(ServeSettings(host="0.0.0.0"), register(LINE)) is None
    allowed = allowed_hosts(
        ServeSettings(host="0.0.0.0", hosts=["search.example.com"]), register(LINE)
    )
    assert ("search.example.com" in allowed, "other.example.com" in allowed) == (True, False)


def test_an_address_in_use_or_of_another_machine_is_named():
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TerminalError, match=rf"port {port} of 127\.0\.0\.1: .*in use.*--port"):
            listen("127.0.0.1", port)
    for host in ("192.0.2.1", "no-such-host.invalid"):
        with pytest.raises(TerminalError, match=host):
            listen(host, 0)
    with closing(listen("127.0.0.1", 0)) as listening:
        assert url_of(listening) == f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_an_answer_does_not_wait_for_its_caller_to_acknowledge_the_first_packet():
    with (
        closing(listen("127.0.0.1", 0)) as listening,
        closing(socket.create_connection(listening.getsockname())),
    ):
        connection, _ = listening.accept()
        with closing(connection):
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
