"""MCP on standard input and output: whatever a line holds, the client is not left waiting."""

import json
import subprocess

import pytest

from tests.project import PROGRAM
from tests.search.conftest import SHARED
from tests.search.desk import DESK, Desk

PARSE_ERROR, INVALID_REQUEST, UNKNOWN_METHOD = -32700, -32600, -32601


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    return Desk(tmp_path_factory.mktemp("stdio"), names=("comments",), extra=SHARED).fill(
        {"comments": DESK["comments"]}
    )


def message(**members) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **members}).encode()


def hello() -> bytes:
    client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    return message(id="hello", method="initialize", params=client)


def search(number, query: str = "printer") -> bytes:
    return message(id=number, method="tools/call", params={"name": "search", "arguments": {"query": query}})


def answers(desk, *lines: bytes):
    """Return what a process writes for these lines, after which its input ends at once, but for the greeting."""
    given = b"\n".join([hello(), message(method="notifications/initialized"), *lines, b""])
    command = [*PROGRAM, "--config", str(desk.config), "mcp"]
    done = subprocess.run(command, input=given, capture_output=True, check=True, timeout=120)
    greeting, *rest = map(json.loads, done.stdout.splitlines())
    assert greeting["id"] == "hello"
    return rest


def outcome(answer) -> tuple:
    """Return the id of an answer with the code of its error, or "hits", or the first words of what it says."""
    found = answer.get("result", {}).get("content", [{}])[0].get("text", "")
    said = "hits" if "[comments/" in found else " ".join(found.split()[:3])
    return answer["id"], answer.get("error", {}).get("code", said)


@pytest.mark.long
def test_every_line_but_a_notification_is_answered_and_those_after_it_too(desk):
    """A notification is not, nor is an empty line; a request that the client cancels holds up nothing."""
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
        (message(id=11, result="no object"), None, INVALID_REQUEST),  # an answer, and the number is one of ours
        (b'"text"', None, INVALID_REQUEST),
        (b"[]", None, INVALID_REQUEST),
        (b"[" + search(12) + b"]", None, INVALID_REQUEST),  # no version has batches now
        (message(id=13, method="tools/call", params={"name": "no-tool"}), 13, "there is no"),
        (search(14), 14, "hits"),
    ]  # fmt: skip
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
    expected = [(number, right) for _, number, right in cases]
    assert sorted(map(str, found)) == sorted(map(str, expected))
