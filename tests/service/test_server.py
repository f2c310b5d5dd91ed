"""The command `serve` as a process of its own: it says where it listens, serves, and stops in order."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from rag_index.cli import main
from rag_index.service.tokens import new_token, token_line
from tests.project import PROGRAM
from tests.retrieve.desk import Desk
from tests.waiting import eventually

LINE = token_line("bo", new_token(), [])
TOKEN_LINE = re.compile(r"^  (bo sha256:[0-9a-f]{64} sales%20team)$", re.MULTILINE)


@contextmanager
def serving(desk: Desk, *arguments: str, **environment: str):
    """Run the command until the block ends; yield the process and the address that it says."""
    command = [*PROGRAM, "--config", str(desk.config), "serve", "--port", "0", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
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


def run(desk: Desk, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, "--config", str(desk.config), "serve", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **environment}
    )


@pytest.fixture(scope="module")
def token(desk) -> tuple[str, str]:
    """A token and its line, as the command prints them."""
    made = run(desk, "--new-token", "bo", "--group", "sales team")
    assert made.returncode == 0
    return re.search(r"^  (rag_\S+)$", made.stdout, re.MULTILINE)[1], TOKEN_LINE.search(made.stdout)[1]


def test_it_serves_with_default_settings_and_stops_in_order(desk):
    with serving(desk) as (process, url):
        found = httpx.get(f"{url}/search", params={"query": "printer secretword"}, timeout=60)
        assert found.status_code == 200
        assert found.headers.get("server") is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        log = process.stderr.read()
    assert "GET /search 200" in log
    assert "secretword" not in log
    assert "Traceback" not in log


@pytest.mark.long
def test_it_lets_a_request_end_before_it_stops(served, qdrant):
    with serving(served) as (process, url), ThreadPoolExecutor() as threads:
        assert httpx.get(f"{url}/search", params={"query": "printer"}, timeout=60).status_code == 200
        fault = qdrant.break_next("/points/query", times=3, hang=1)
        asking = threads.submit(httpx.get, f"{url}/search", params={"query": "mailbox"}, timeout=60)
        eventually(lambda: fault.met, "the search has begun")
        process.send_signal(signal.SIGINT)
        assert asking.result().status_code == 200
        assert process.wait(60) == 0


@pytest.mark.long
def test_elsewhere_it_listens_only_with_tokens(desk, token):
    refused = run(desk, "--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 2
    assert "needs tokens: make a token with `rag-index serve --new-token NAME`" in refused.stderr
    with serving(desk, "--host", "0.0.0.0", RAG_INDEX_SERVE__TOKENS=token[1]) as (_, url):
        assert httpx.get(f"{url}/indexes").status_code == 401
        assert httpx.get(f"{url}/indexes", headers={"Authorization": f"Bearer {token[0]}"}).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "words"),
    [
        (["--host", "0.0.0.0"], {}, 2, "needs tokens: make a token with `rag-index serve --new-token NAME`"),
        (["--host", "192.0.2.1"], {"TOKENS": LINE}, 1, "cannot listen on port 8765 of 192.0.2.1"),
        (["--group", "sales"], {}, 2, "--group belongs to --new-token"),
        (["--new-token", " "], {}, 2, "needs the name"),
        ([], {"TOKENS": "rag_abc"}, 2, "line 1 is not NAME sha256:HASH"),
        ([], {"TOKENS_FILE": "/nowhere"}, 2, "/nowhere cannot be read"),
        ([], {"CORS": "*"}, 2, "is not an origin"),
        ([], {"HOSTS": "search.example.com"}, 2, "needs tokens"),
    ],
)
def test_what_is_wrong_is_one_line(desk, monkeypatch, capsys, arguments, environment, code, words):
    for name, value in environment.items():
        monkeypatch.setenv(f"RAG_INDEX_SERVE__{name}", value)
    with pytest.raises(SystemExit) as ended:
        main(["--config", str(desk.config), "serve", *arguments])
    shown = capsys.readouterr()
    assert (ended.value.code, words in shown.err) == (code, True), shown
    assert "rag_abc" not in shown.err
