"""The tools as agents call them: by the official client, over HTTP from a real server and over a
real process."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager

import httpx
import httpx2
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from rag_index.core.settings import ServeSettings
from rag_index.errors import RagIndexError, install_command
from rag_index.search.service.tokens import new_token, token_line
from tests.project import PROGRAM, run_here
from tests.search.conftest import SHARED
from tests.search.desk import DESK, Desk, agent
from tests.search.service.live import Live
from tests.waiting import eventually

LONG = " ".join(f"Paragraph {number} about the tape library and its robot." for number in range(30))
WITH_KINDS = 'payload_indexes = { priority = "keyword", number = "float", created_at = "datetime" }'
FIRST = {"index": "comments", "document_id": "1"}
MISTAKES = [
    (
        "search",
        {"query": "x", "indexes": ["coments"]},
        "there is no index 'coments', did you mean 'comments'?",
    ),
    ("search", {"query": "x", "filter": {"colour": 1}}, "there is no field 'colour' to filter by"),
    (
        "search",
        {"query": "x", "indexes": "title"},
        "there is no index 'title', did you mean 'titles'?",
    ),
    ("search", {"query": "x", "indexes": '["titles"'}, "there is no index '[\"titles\"'"),
    ("search", {"query": "x", "indexes": "[]"}, "`indexes` names no index"),
    ("search", {"query": "x", "filter": "[1]"}, "search: filter: Input should be a"),
    (
        "search",
        {"query": "x", "filter": {"number": "soon"}, "indexes": "comments"},
        "'soon' is not a number, and the ",
    ),
    ("search", {"query": "x", "filter": "priority=high"}, "search: filter: Input should be a"),
    (
        "search",
        {"query": "x", "top_k": 3},
        "search has no argument 'top_k'; it takes query, indexes, limit, ",
    ),
    (
        "search",
        {"query": "x", "rerank": False},
        "search has no argument 'rerank'; it takes query, indexes",
    ),
    ("search", {}, "search: query: Field required"),
    ("search", {"query": "x", "limit": 1000}, "search: limit: Input should be less than or equal"),
    ("get_document", {**FIRST, "document_id": "99"}, "99"),
    ("get_document", {**FIRST, "around": 9}, "around is 9, but the chunks of"),
    ("get_document", {**FIRST, "find": "the"}, "find has no word that could be"),
    (
        "get_document",
        {**FIRST, "find": "x", "around": 0},
        "get_document: first_chunk, around and find exclude each",
    ),
    ("list_indexes", {"verbose": True}, "list_indexes has no argument 'verbose'; it takes none"),
    (
        "drop_table",
        {},
        "there is no tool 'drop_table'; the tools are search, get_document, verify_c",
    ),
]
PARSE_ERROR, INVALID_REQUEST, UNKNOWN_METHOD = -32700, -32600, -32601


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    desk = Desk(tmp_path_factory.mktemp("agents"), extra=SHARED, more={"comments": WITH_KINDS})
    return desk.fill(
        {**DESK, "solutions": [*DESK["solutions"], ("tapes/robot", LONG, {"author": "<b>eve</b>"})]}
    )


@pytest.fixture(params=["http", "http before 2026", pytest.param("stdio", marks=pytest.mark.long)])
def connected(request, desk):
    """A client that connects in one of the ways that agents do."""
    if request.param == "stdio":
        server = StdioServerParameters(
            command=PROGRAM[0], args=[*PROGRAM[1:], "--config", str(desk.config), "mcp"]
        )
    else:
        server = f"{request.getfixturevalue('live').url}/mcp"
    return Client(server, mode="legacy" if request.param == "http before 2026" else "auto")


def talk(connected, *calls):
    """Return the tools, and the result of each call."""

    async def conversation():
        async with connected as client:
            return (await client.list_tools()).tools, [
                await client.call_tool(*call) for call in calls
            ]

    return asyncio.run(conversation())


@asynccontextmanager
async def by_token(url, token=""):
    """Connect a client to a service, with a token if there is one."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
    ):
        yield client


def text_of(result) -> str:
    (content,) = result.content
    return content.text


def test_an_agent_finds_reads_and_cites(connected):
    tools, (found, corrected, document, listed) = talk(
        connected,
        (
            "search",
            {
                "query": "printer offline",
                "filter": {"priority": "high"},
                "indexes": ["comments", "titles"],
            },
        ),
        ("search", {"query": "prinetr offline", "limit": 1}),
        ("get_document", {"index": "comments", "document_id": "1"}),
        ("list_indexes", {}),
    )
    names = ["search", "get_document", "verify_citations", "list_indexes", "why_not_found"]
    assert [tool.name for tool in tools] == names
    assert tools[0].annotations.read_only_hint
    assert tools[0].input_schema["properties"]["indexes"]["items"]["enum"] == list(DESK)
    for result in (found, document, listed):
        assert not result.is_error, text_of(result)
        assert result.structured_content is None, "a text is sent once"
    assert "1. [comments/1#0:" in text_of(found)
    assert "has printer, offline (author: ann" in text_of(found)
    assert "**printer**" in text_of(found)
    assert text_of(found).replace("**", "").count(DESK["comments"][0][1]) == 1
    assert text_of(corrected).startswith("Searched for printer instead of prinetr.\n\n1. [")
    assert [line.split(":")[0] for line in text_of(found).splitlines()[-2:]] == [
        "Index comments",
        "Index titles",
    ]
    assert text_of(document).startswith("[comments/1")
    assert "author: ann" in text_of(document)
    assert DESK["comments"][0][1] in text_of(document)
    assert [line.split(":")[0] for line in text_of(listed).splitlines()] == list(DESK)
    assert 'priority (keyword: "high" 2, "low" 1)' in text_of(listed)


def test_a_mistake_is_one_line_that_says_what_to_do(desk):
    with desk.retriever() as retriever:
        for tool, arguments, words in MISTAKES:
            with pytest.raises(RagIndexError, match=re.escape(words)) as mistake:
                agent(desk.settings, retriever)(tool, **arguments)
            assert "\n" not in str(mistake.value)


def test_a_service_with_tokens_answers_agents_that_have_one(desk, tmp_path):
    token, tokens = new_token(), tmp_path / "tokens"
    tokens.write_text(token_line("agent", token, []), encoding="utf-8")
    settings = desk.settings.model_copy(update={"serve": ServeSettings(tokens_file=tokens)})
    search = ("search", {"query": "printer"})
    with Live(settings) as live:
        _, [found] = talk(by_token(live.url, token), search)
        assert not found.is_error
        for other in ("", new_token()):
            headers = {"Authorization": f"Bearer {other}"} if other else {}
            assert (
                httpx.post(f"{live.url}/mcp", headers=headers, json={}, timeout=60).status_code
                == 401
            )
            with pytest.raises((MCPError, ExceptionGroup)):
                talk(by_token(live.url, other), search)


@pytest.mark.parametrize("way", ["http", pytest.param("stdio", marks=pytest.mark.long)])
def test_models_are_loaded_before_anybody_asks(ollama, ollama_desk, way):
    command = [*PROGRAM, "--config", str(ollama_desk.config), "mcp"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with Live(ollama_desk.settings) if way == "http" else subprocess.Popen(command, **pipes):
        eventually(ollama.embeds, "it warms up")


def test_without_the_extra_the_command_says_what_to_install_and_the_service_works_without(
    desk, monkeypatch, caplog
):
    monkeypatch.setitem(sys.modules, "mcp", None)
    assert run_here(desk.config, "mcp", code=2)[1].strip().endswith(install_command("mcp"))
    with (
        Live(desk.settings) as live,
        httpx.Client(base_url=live.url, trust_env=False, timeout=60) as client,
    ):
        assert client.get("/indexes").status_code == 200
        assert client.post("/mcp", json={}).status_code == 404
    assert (
        f"agents cannot ask at /mcp: it needs the package mcp ({install_command('mcp')})"
        in caplog.text
    )


def test_what_an_agent_should_know_is_printed_from_the_settings(desk):
    printed = {
        kind: run_here(desk.config, "mcp", "--print", kind)[0] for kind in ("skill", "agents")
    }
    head, _, body = printed["skill"].removeprefix("---\n").partition("---\n\n")
    assert dict(line.split(": ", 1) for line in head.splitlines()).keys() == {"name", "description"}
    assert "comments, solutions, titles" in head
    assert "- `titles` (english): `priority`, `author`" in body
    assert printed["agents"] == f"#{body}", "as a section of a page that has a title"


def message(**members) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **members}).encode()


def hello() -> bytes:
    client = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    }
    return message(id="hello", method="initialize", params=client)


def search(number, query: str = "printer") -> bytes:
    return message(
        id=number, method="tools/call", params={"name": "search", "arguments": {"query": query}}
    )


def answers(desk, *lines: bytes):
    """Return what a process writes for these lines, after which its input ends at once, but for the
    greeting."""
    given = b"\n".join([hello(), message(method="notifications/initialized"), *lines, b""])
    command = [*PROGRAM, "--config", str(desk.config), "--verbose", "mcp"]
    done = subprocess.run(command, input=given, capture_output=True, check=True, timeout=120)
    greeting, *rest = map(json.loads, done.stdout.splitlines())
    assert greeting["id"] == "hello"
    return rest


@pytest.mark.long
def test_a_signal_ends_the_process_although_its_input_is_open(desk):
    command = [*PROGRAM, "--config", str(desk.config), "mcp"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(hello() + b"\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == "hello"
        process.terminate()
        process.wait(timeout=60)
        assert (process.communicate()[0], process.returncode) == (b"", -signal.SIGTERM)


def outcome(answer) -> tuple:
    """Return the id of an answer with the code of its error, or "hits", or the first words of what
    it says."""
    found = answer.get("result", {}).get("content", [{}])[0].get("text", "")
    said = "hits" if "[comments/" in found else " ".join(found.split()[:3])
    return answer["id"], answer.get("error", {}).get("code", said)


@pytest.mark.long
def test_every_line_but_a_notification_is_answered_and_those_after_it_too(desk):
    """A notification is not, nor is an empty line; a request that the client cancels holds up
    nothing."""
    cases = [
        (b"this is no JSON", None, PARSE_ERROR),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "ping"', None, PARSE_ERROR),
        (b'{"jsonrpc": "2.0", "id": NaN, "method": "ping"}', None, PARSE_ERROR),
        (b"[" * 100_000, None, PARSE_ERROR),
        (b'{"jsonrpc": "2.0", "id": ' + b"1" * 5000 + b"}", None, PARSE_ERROR),
        (search(2, "printer \ud800"), 2, "hits"),
        (search(3).replace(b"printer", b"printer \xff\xed\xa0\x80"), 3, "hits"),
        (b"\xef\xbb\xbf" + search(4) + b"\r", 4, "hits"),
        (search("a text"), "a text", "hits"),
        (search(10**30), 10**30, "hits"),
        (search(5, "printer " * 1_000_000), 5, "search: query: String"),
        (message(id=6, method="no/such"), 6, UNKNOWN_METHOD),
        (message(id=7, method="tools/call", params=["search"]), 7, INVALID_REQUEST),
        (message(id=8), 8, INVALID_REQUEST),
        (message(id=9, method=1), 9, INVALID_REQUEST),
        (b'{"id": 10, "method": "ping"}', 10, INVALID_REQUEST),
        (message(id=1.5, method="ping"), 1.5, INVALID_REQUEST),
        (message(id="\udc00", method=1), "?", INVALID_REQUEST),
        (message(id=None, method="ping"), None, INVALID_REQUEST),
        (message(id=True, method="ping"), None, INVALID_REQUEST),
        (message(id={}, method="ping"), None, INVALID_REQUEST),
        (
            message(id=11, result="no object"),
            None,
            INVALID_REQUEST,
        ),  # an answer, and the number is one of ours
        (b'"text"', None, INVALID_REQUEST),
        (b"[]", None, INVALID_REQUEST),
        (b"[" + search(12) + b"]", None, INVALID_REQUEST),  # no version has batches now
        (message(id=13, method="tools/call", params={"name": "no-tool"}), 13, "there is no"),
        (search(14), 14, "hits"),
    ]
    silent = [
        message(method="notifications/no/such"),
        message(method="notifications/x", params=[1]),
        message(method="tools/call", params={"name": "search", "arguments": {"query": "printer"}}),
        message(id=77, result={}),  # an answer to a question that was never asked
        b"  ",
        b"\r",
    ]
    cancelled = [search(20), message(method="notifications/cancelled", params={"requestId": 20})]
    given = [*silent, *cancelled, *(line for line, _, _ in cases)]
    found = [outcome(answer) for answer in answers(desk, *given) if answer["id"] != 20]
    assert sorted(map(str, found)) == sorted(
        map(str, [(number, right) for _, number, right in cases])
    )
