"""The tools as agents call them: by the official client, over HTTP from a real server and over a real process."""

import asyncio
import json
import signal
import subprocess
import sys
from contextlib import asynccontextmanager

import httpx
import httpx2
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from rag_index import cli
from rag_index.core.settings import ServeSettings
from rag_index.errors import install_command
from rag_index.search import Retriever
from rag_index.search.service import Caller, SearchService
from rag_index.search.service.mcp_tools import AgentTools
from rag_index.search.service.tokens import new_token, token_line
from tests.project import PROGRAM
from tests.search.conftest import SHARED
from tests.search.desk import DESK, Desk
from tests.search.service.live import Live
from tests.waiting import eventually

LONG = " ".join(f"Paragraph {number} about the tape library and its robot." for number in range(30))
WITH_KINDS = 'payload_indexes = { priority = "keyword", number = "float", created_at = "datetime" }'


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    desk = Desk(tmp_path_factory.mktemp("agents"), extra=SHARED, more={"comments": WITH_KINDS})
    documents = {**DESK, "solutions": [*DESK["solutions"], ("tapes/robot", LONG, {"author": "<b>eve</b>"})]}
    return desk.fill(documents)


@pytest.fixture(params=["http", "http before 2026", pytest.param("stdio", marks=pytest.mark.long)])
def connect(request, desk):
    """Return a function that connects a client in one of the ways that agents do."""
    if request.param == "stdio":
        server = StdioServerParameters(command=PROGRAM[0], args=[*PROGRAM[1:], "--config", str(desk.config), "mcp"])
    else:
        server = f"{request.getfixturevalue('live').url}/mcp"
    mode = "legacy" if request.param == "http before 2026" else "auto"

    @asynccontextmanager
    async def connected():
        async with Client(server, mode=mode) as client:
            yield client

    return connected


def talk(connect, *calls):
    """Return the tools, and the result of each call."""

    async def conversation():
        async with connect() as client:
            return (await client.list_tools()).tools, [await client.call_tool(*call) for call in calls]

    return asyncio.run(conversation())


def text_of(result) -> str:
    (content,) = result.content
    return content.text


def test_an_agent_finds_reads_and_cites(connect):
    tools, (found, corrected, document, listed) = talk(
        connect,
        ("search", {"query": "printer offline", "filter": {"priority": "high"}, "indexes": ["comments", "titles"]}),
        ("search", {"query": "prinetr offline", "limit": 1}),
        ("get_document", {"index": "comments", "document_id": "1"}),
        ("list_indexes", {}),
    )
    assert [tool.name for tool in tools] == [
        "search", "get_document", "verify_citations", "list_indexes", "why_not_found",
    ]  # fmt: skip
    by_name = {tool.name: tool for tool in tools}
    assert by_name["search"].annotations.read_only_hint
    assert by_name["search"].input_schema["properties"]["indexes"]["items"]["enum"] == list(DESK)
    for result in (found, document, listed):
        assert not result.is_error, text_of(result)
        assert result.structured_content is None, "a text is sent once"
    assert "1. [comments/1#0:" in text_of(found)
    assert "has printer, offline (author: ann" in text_of(found)
    assert "**printer**" in text_of(found)
    assert text_of(found).replace("**", "").count(DESK["comments"][0][1]) == 1
    assert text_of(corrected).startswith("Searched for printer instead of prinetr.\n\n1. [")
    assert [line.split(":")[0] for line in text_of(found).splitlines()[-2:]] == ["Index comments", "Index titles"]
    assert text_of(document).startswith("[comments/1")
    assert "author: ann" in text_of(document)
    assert DESK["comments"][0][1] in text_of(document)
    assert [line.split(":")[0] for line in text_of(listed).splitlines()] == list(DESK)
    assert 'priority (keyword: "high" 2, "low" 1)' in text_of(listed)


def told(desk, *calls) -> list[str]:
    """Return the answers of the tools, or what they say is wrong."""

    async def answers() -> list[str]:
        async with Retriever(desk.settings) as retriever:
            tools = AgentTools(SearchService(desk.settings, retriever))
            found = await asyncio.gather(*(tools.call(*call, Caller()) for call in calls), return_exceptions=True)
            return [answer if isinstance(answer, str) else f"{type(answer).__name__}: {answer}" for answer in found]

    return asyncio.run(answers())


FIRST = {"index": "comments", "document_id": "1"}
MISTAKES = [
    ("search", {"query": "x", "indexes": ["coments"]}, "there is no index 'coments', did you mean 'comments'?"),
    ("search", {"query": "x", "filter": {"colour": 1}}, "there is no field 'colour' to filter by"),
    ("search", {"query": "x", "indexes": "titles"}, "search: indexes: Input should be a valid list"),
    ("search", {"query": "x", "filter": "priority=high"}, "search: filter: Input should be a"),
    ("search", {"query": "x", "top_k": 3}, "search has no argument 'top_k'; it takes query, indexes, limit, "),
    ("search", {"query": "x", "rerank": False}, "search has no argument 'rerank'; it takes query, indexes"),
    ("search", {}, "search: query: Field required"),
    ("search", {"query": "x", "limit": 1000}, "search: limit: Input should be less than or equal"),
    ("get_document", {**FIRST, "document_id": "99"}, "99"),
    ("get_document", {**FIRST, "around": 9}, "around is 9, but the chunks of"),
    ("get_document", {**FIRST, "find": "the"}, "find has no word that could be"),
    ("get_document", {**FIRST, "find": "x", "around": 0}, "get_document: first_chunk, around and find exclude each"),
    ("list_indexes", {"verbose": True}, "list_indexes has no argument 'verbose'; it takes none"),
    ("drop_table", {}, "there is no tool 'drop_table'; the tools are search, get_document, verify_c"),
]


def test_a_mistake_is_one_line_that_says_what_to_do(desk):
    for answer, (tool, arguments, words) in zip(told(desk, *(one[:2] for one in MISTAKES)), MISTAKES, strict=True):
        assert words in answer, (tool, arguments)
        assert "Error: " in answer or "DocumentNotFound: " in answer or "UnknownIndex: " in answer
        assert "\n" not in answer


def test_a_service_with_tokens_answers_agents_that_have_one(desk, tmp_path):
    token = new_token()
    tokens = tmp_path / "tokens"
    tokens.write_text(token_line("agent", token, []), encoding="utf-8")
    settings = desk.settings.model_copy(update={"serve": ServeSettings(tokens_file=tokens)})

    async def hits(url, headers):
        async with (
            httpx2.AsyncClient(headers=headers, timeout=60) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            return not (await client.call_tool("search", {"query": "printer"})).is_error

    with Live(settings) as live:
        assert asyncio.run(hits(f"{live.url}/mcp", {"Authorization": f"Bearer {token}"}))
        for headers in ({}, {"Authorization": f"Bearer {new_token()}"}):
            assert httpx.post(f"{live.url}/mcp", headers=headers, json={}, timeout=60).status_code == 401
            with pytest.raises((MCPError, ExceptionGroup)):
                asyncio.run(hits(f"{live.url}/mcp", headers))


@pytest.mark.long
@pytest.mark.parametrize("stop", [0, signal.SIGTERM])
def test_the_output_of_the_process_is_protocol_alone(desk, stop):
    """A raw client of an older version; the process ends when its input does, or at a signal."""
    started = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    messages = [
        {"id": 1, "method": "initialize", "params": started},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": {"name": "search", "arguments": {"query": "printer"}}},
    ]
    command = [*PROGRAM, "--config", str(desk.config), "--verbose", "mcp"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for message in messages:
            process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
            process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for _ in range(2)]
        if stop:
            process.send_signal(stop)  # the input is still open
            process.wait(timeout=60)
        rest, _ = process.communicate()
    assert [answer["id"] for answer in answers] == [1, 2]
    assert "[comments/1#0:" in answers[1]["result"]["content"][0]["text"]
    assert (rest, process.returncode) == ("", -stop)


@pytest.mark.parametrize("way", ["http", pytest.param("stdio", marks=pytest.mark.long)])
def test_models_are_loaded_before_anybody_asks(ollama, ollama_desk, way):
    command = [*PROGRAM, "--config", str(ollama_desk.config), "mcp"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with Live(ollama_desk.settings) if way == "http" else subprocess.Popen(command, **pipes):
        eventually(ollama.embeds, "it warms up")


def test_without_the_extra_the_command_says_what_to_install(desk, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(SystemExit) as ended:
        cli.main(["--config", str(desk.config), "mcp"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip().endswith(install_command("mcp"))


def test_without_the_extra_the_service_works_and_says_that_agents_cannot_ask(desk, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "mcp", None)
    with Live(desk.settings) as live, httpx.Client(base_url=live.url, trust_env=False, timeout=60) as client:
        assert client.get("/indexes").status_code == 200
        assert client.post("/mcp", json={}).status_code == 404
    assert f"agents cannot ask at /mcp: it needs the package mcp ({install_command('mcp')})" in caplog.text


def test_what_an_agent_should_know_is_printed_from_the_settings(desk, capsys):
    printed = {}
    for kind in ("skill", "agents"):
        with pytest.raises(SystemExit):
            cli.main(["--config", str(desk.config), "mcp", "--print", kind])
        printed[kind] = capsys.readouterr().out
    head, _, body = printed["skill"].removeprefix("---\n").partition("---\n\n")
    assert dict(line.split(": ", 1) for line in head.splitlines()).keys() == {"name", "description"}
    assert "comments, solutions, titles" in head
    assert "- `titles` (english): `priority`, `author`" in body
    assert printed["agents"] == f"#{body}", "as a section of a page that has a title"
