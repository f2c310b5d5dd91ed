"""Ten questions with known answers: an agent that follows the skill has each answer after three calls at most."""

from __future__ import annotations

import asyncio
import re

import pytest

from rag_index import cli
from rag_index.retrieve import Retriever
from rag_index.service.models import Caller
from rag_index.service.search_service import SearchService
from rag_index.service.tools import AgentTools
from tests.retrieve.desk import DESK, Desk

SECTIONS = [
    "Order cartridges from the stationery desk. Approval takes two working days.",
    "The backup of the file server begins at 23:40 and ends before the first shift.",
    "If the tape robot stops, press the blue button behind its door.",
    "It then counts its tapes, which takes eleven minutes. Nobody may open the door meanwhile.",
    "After that call the operator of the week.",
    "The operator of the week has the number 5512.",
    "The network of the laboratory is not connected to that of the offices.",
    "Guests get access to the wireless network from the reception, for one day.",
    "Error E-4711 of the badge reader means that its clock is wrong.",
    "To set the clock, hold the reader's key for nine seconds.",
]
FILLER = [
    f"Paragraph {n} of the house rules is about chairs, desks and lamps in room {n}, and nothing else."
    for n in range(60)
]
HANDBOOK = " ".join(FILLER[:20] + SECTIONS[:5] + FILLER[20:40] + SECTIONS[5:] + FILLER[40:])

QUESTIONS = [
    ("What is offline since the update?", {}, "printer on floor two"),
    ("Which driver helps when the printer does not work?", {}, "older printer driver"),
    ("When does the backup of the file server begin?", {}, "23:40"),
    ("The tape robot has stopped: how long does counting take after the button?", {}, "eleven minutes"),
    ("What is the number of the operator of the week?", {}, "5512"),
    ("badge reader E-4711", {}, "clock is wrong"),
    ("How is the clock of the badge reader set?", {}, "nine seconds"),
    ("printer trouble with low priority", {"priority": "low"}, "blank pages"),
    ("Where do guests get access to the wireless network?", {}, "reception"),
    ("Who wrote about the password?", {"number": {"gte": 2}}, "author: bob"),
]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    desk = Desk(tmp_path_factory.mktemp("questions"))
    return desk.fill({**DESK, "solutions": [*DESK["solutions"], ("handbook", HANDBOOK, {"author": "eve"})]})


def ask(settings, question: str, wanted: dict) -> list[str]:
    """Return what an agent is told that searches, reads around the first hit, and looks for words in its document."""

    async def calls() -> list[str]:
        async with Retriever(settings) as retriever:
            tools = AgentTools(SearchService(settings, retriever))
            given = {"query": question, "limit": 3, **({"filter": wanted} if wanted else {})}
            told = [await tools.call("search", given, Caller())]
            index, document, chunk = re.match(r"1\. \[(\w+)/([^],]+).*?\](?:.*?, chunk (\d+))?", told[0]).groups()
            where = {"index": index, "document_id": document, "max_chars": 1500}
            told.append(await tools.call("get_document", {**where, "around": int(chunk or 0)}, Caller()))
            told.append(await tools.call("get_document", {**where, "find": question}, Caller()))
            return told

    return asyncio.run(calls())


@pytest.mark.parametrize(("question", "wanted", "answer"), QUESTIONS)
def test_each_is_answered_in_at_most_three_calls(desk, question, wanted, answer):
    told = ask(desk.settings, question, wanted)
    needed = next((number for number, text in enumerate(told, 1) if answer in text), None)
    assert needed, told
    assert sum(map(len, told[:needed])) < 5000, "and without reading the whole handbook"


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
