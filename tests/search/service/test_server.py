"""The command `serve` as a process of its own: it says where it listens, serves, and stops in
order."""

import os
import re
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from urllib.parse import urlsplit

import httpx
import pytest

from rag_index.core.settings import ServeSettings
from rag_index.search import Caller
from rag_index.search.service.tokens import TokenRegister, new_token, token_line
from tests.project import PROGRAM, run_here
from tests.search.desk import Desk
from tests.waiting import eventually

LINE = token_line("bo", new_token(), [])


@contextmanager
def serving(desk: Desk, **environment: str):
    """Run the command until the block ends; yield the process and the address that it says."""
    command, pipe = (
        [*PROGRAM, "--config", str(desk.config), "serve", "--port", "0"],
        subprocess.PIPE,
    )
    process = subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env={**os.environ, **environment}
    )
    try:
        line = process.stdout.readline()
        found = re.fullmatch(r"rag-index answers at (http://\S+)\n", line)
        assert found, (line, process.stderr.read())
        yield process, found[1]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_it_serves_with_default_settings_and_stops_in_order(desk):
    with serving(desk) as (process, url):
        found = httpx.get(f"{url}/search", params={"query": "printer secretword"}, timeout=60)
        assert found.status_code == 200
        assert found.headers.get("server") is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        log = process.stderr.read()
    assert re.search(
        r"^[-\d]+ [:,\d]+ \| INFO    \| rag_index\.search\S* - .*GET /search 200", log, re.MULTILINE
    )
    assert "secretword" not in log
    assert "Traceback" not in log


@pytest.mark.long
def test_it_lets_a_request_end_before_it_stops(served, qdrant):
    with serving(served) as (process, url), ThreadPoolExecutor() as threads:
        assert (
            httpx.get(f"{url}/search", params={"query": "printer"}, timeout=60).status_code == 200
        )
        fault = qdrant.break_next("/points/query", times=3, hang=1)
        asking = threads.submit(httpx.get, f"{url}/search", params={"query": "mailbox"}, timeout=60)
        eventually(lambda: fault.met, "the search has begun")
        process.send_signal(signal.SIGINT)
        assert asking.result().status_code == 200
        assert process.wait(60) == 0


@pytest.mark.long
def test_a_request_that_does_not_end_is_given_up_when_the_service_stops(served, qdrant):
    asked, hour = b'{"query": "printer", "timeout": 3600}', "3600"
    with serving(served, RAG_INDEX_RETRIEVE__TIMEOUT=hour, RAG_INDEX_STORE__TIMEOUT=hour) as (
        process,
        url,
    ):
        ask = partial(httpx.get, f"{url}/search", params={"query": "printer"}, timeout=60)
        eventually(lambda: ask().status_code == 200, "the model is loaded")
        fault = qdrant.break_next("/points/query", times=None, hang=3600)
        with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port)) as connection:
            head = (
                f"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(asked)}\r\n\r\n"
            )
            connection.sendall(head.encode() + asked)
            eventually(lambda: fault.met, "the search has begun")
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            assert b" 200 " not in connection.recv(100)
        assert "Traceback" not in process.stderr.read()


@pytest.mark.long
def test_a_server_that_never_answers_holds_up_nothing(served, qdrant):
    with (
        serving(served, RAG_INDEX_RETRIEVE__TIMEOUT="3") as (process, url),
        ThreadPoolExecutor() as threads,
    ):
        ask = partial(httpx.get, f"{url}/search", timeout=60)
        eventually(
            lambda: ask(params={"query": "printer"}).status_code == 200, "the model is loaded"
        )
        fault = qdrant.break_next(
            "POST /collections/desk_titles__1/points/query", times=None, hang=3600
        )
        stuck = [
            threads.submit(ask, params={"query": f"printer {n}", "indexes": "titles"})
            for n in range(5)
        ]
        eventually(lambda: fault.met, "the searches have begun")
        assert ask(params={"query": "printer", "indexes": "comments"}).status_code == 200
        assert httpx.get(f"{url}/healthz", timeout=60).status_code == 200
        ended = {one.result().status_code for one in stuck}
        assert 504 in ended <= {503, 504}, "one that waited for its turn is told to come back later"
        stuck = threads.submit(ask, params={"query": "printer", "indexes": "titles"})
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        stuck.exception()


@pytest.mark.long
@pytest.mark.parametrize("change", ["closes an index", "is not valid", "is no file"])
def test_it_ends_when_its_settings_change_so_that_its_supervisor_starts_it_with_them(
    tmp_path, template, change
):
    desk = Desk(tmp_path / "desk", template=template).fill()
    ask = partial(httpx.get, params={"query": "printer", "indexes": "comments"}, timeout=60)
    with serving(desk) as (process, url):
        assert ask(f"{url}/search").json()["hits"]
        os.utime(desk.config)
        desk.config.write_bytes(desk.config.read_bytes())
        if change == "closes an index":
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(3)  # it has the same settings
        if change == "is no file":
            desk.config.unlink()
        else:
            desk.write(
                comments='access = "author"' if change == "closes an index" else "access = 5"
            )
        assert process.wait(60) == 1
        said = (
            f"rag-index: settings changed: restart the service, so that it reads {desk.config}"
            " again"
        )
        assert said in process.stderr.read().splitlines()
        with pytest.raises(httpx.ConnectError):
            ask(f"{url}/search")


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "words"),
    [
        (
            ["--host", "0.0.0.0"],
            {},
            2,
            "needs tokens: make a token with `rag-index serve --new-token NAME`",
        ),
        (["--host", "192.0.2.1"], {"TOKENS": LINE}, 1, "cannot listen on port 8765 of 192.0.2.1"),
        (["--group", "sales"], {}, 2, "--group belongs to --new-token"),
        ([], {"TOKENS": "rag_abc"}, 2, "line 1 is not NAME sha256:HASH"),
        ([], {"TOKENS_FILE": "/nowhere"}, 2, "/nowhere cannot be read"),
        ([], {"CORS": "*"}, 2, "is not an origin"),
        ([], {"HOSTS": "search.example.com"}, 2, "needs tokens"),
    ],
)
def test_what_is_wrong_is_one_line(desk, monkeypatch, arguments, environment, code, words):
    for name, value in environment.items():
        monkeypatch.setenv(f"RAG_INDEX_SERVE__{name}", value)
    _, said = run_here(desk.config, "serve", *arguments, code=code)
    assert words in said
    assert "rag_abc" not in said


def test_a_new_token_is_printed_with_the_line_by_which_it_is_known(desk):
    shown, _ = run_here(desk.config, "serve", "--new-token", "bo", "--group", "sales team")
    token = re.search(r"^  (rag_\S+)$", shown, re.MULTILINE)[1]
    line = re.search(r"^  (bo sha256:\S+ sales%20team)$", shown, re.MULTILINE)[1]
    assert TokenRegister(ServeSettings(tokens=[line])).caller(token) == Caller(
        "bo", frozenset({"sales team"})
    )
