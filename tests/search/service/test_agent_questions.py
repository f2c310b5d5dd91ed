"""Ten questions of an agent over three corpora: how many one call of `search` answers."""

import asyncio
import shutil
import subprocess

import pytest

from rag_index.core.settings import load_settings
from rag_index.search import Caller, Retriever
from rag_index.search.service import SearchService
from rag_index.search.service.mcp_tools import AgentTools
from tests.docs.pages import ROOT
from tests.project import PROGRAM

pytestmark = pytest.mark.long
ANSWERED = 8
"""Of ten: as many as when this was written. Fewer is a loss."""
QUESTIONS = {
    "workshop": {
        "Why does a record player smell of burning, and what is replaced?": "capacitor",
        "What helps if a hair dryer trips the fuse?": "sealed with silicone",
        "How was a grinding noise of a vacuum cleaner repaired?": "sewing-machine oil",
        "Why must one not solder a thermal fuse?": "solder would melt it",
    },
    "pydocs": {
        "How do I leave a loop before its end?": "[topics/break#",
        "Which methods does an object need to be used by a with statement?": "[topics/context-managers#",
        "How can a function take any number of arguments by keyword?": "**",
        "What happens to an error that no except clause handles?": "[topics/exceptions#",
    },
    "source-tree": {
        "What happens if the bank does not pay?": "CardRefused",
        "Where is a discount taken from the sum?": "def total",
    },
}


def answers(folder, corpus: str) -> int:
    config = folder / "rag-index.toml"
    command = [*PROGRAM, "--config", str(config)]
    if corpus == "source-tree":
        shutil.copytree(ROOT / "examples" / corpus, folder, dirs_exist_ok=True)
    else:
        sample = ["sample", corpus, "--out", str(folder / "d.db"), "--settings"]
        subprocess.run([*command, *sample], check=True, capture_output=True)
    index = ["index", "topics"] if corpus == "pydocs" else ["index-all"]
    subprocess.run([*command, *index], check=True, capture_output=True, timeout=300)
    settings = load_settings(config)
    with Retriever(settings) as retriever:
        tools = AgentTools(SearchService(settings, retriever))

        async def ask(question: str) -> str:
            answer = await tools.call("search", {"query": question, "limit": 3}, Caller())
            return f"{answer}\n{answer.replace('**', '')}"  # with and without what marks words of the question

        return sum(wanted in asyncio.run(ask(question)) for question, wanted in QUESTIONS[corpus].items())


def test_one_call_answers_most_questions(tmp_path):
    for corpus in QUESTIONS:
        (tmp_path / corpus).mkdir()
    answered = {corpus: answers(tmp_path / corpus, corpus) for corpus in QUESTIONS}
    assert sum(answered.values()) >= ANSWERED, answered
    assert sum(map(len, QUESTIONS.values())) == 10
