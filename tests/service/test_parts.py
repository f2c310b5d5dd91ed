"""What programs and agents see of a document that consists of several tables: title, link, and the part."""

import httpx
import pytest

from rag_index.search import Caller
from rag_index.search.service import SearchService
from rag_index.search.service.mcp_tools import AgentTools
from tests.etl.test_parts import SETTINGS, make_project
from tests.service.live import Live

LINK = "https://desk.example.org/t/1"
PART = {"name": "remark", "id": "10", "link": "/r/10"}


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("parts"), SETTINGS.replace('access = "team"\n', "")).settings


def test_programs_and_agents_get_title_link_and_part(settings):
    with Live(settings) as live, httpx.Client(base_url=live.url, timeout=60) as client:
        found = client.post("/search", json={"query": "toner cartridge", "filter": {"remark.author": "kim"}}).json()
        first = found["hits"][0]
        assert (first["title"], first["link"], first["part"]) == ("Printer offline", LINK, PART)
        document = client.get("/documents/notes/1").json()
        assert (document["title"], document["link"]) == ("Printer offline", LINK)
        assert [chunk.get("part", {}).get("id") for chunk in document["chunks"]] == [None, "10", "11"]
        assert document["chunks"][1]["payload"] == {"remark": {"author": "kim"}}
        fields = client.get("/indexes").json()["indexes"][0]["fields"]
        assert {field["name"] for field in fields} == {"customer.name", "remark.author"}
        tools = AgentTools(SearchService(settings, live.retriever))
        given = {"query": "toner cartridge", "filter": {"customer.name": "Acme"}, "limit": 1}
        calls = [("search", given), ("get_document", {"index": "notes", "document_id": "1"})]
        search, document = (live.retriever.run(tools.call(*call, Caller())) for call in calls)
    first, text, *_ = search.splitlines()
    assert first.startswith("1. [notes/1")
    assert "] Printer offline </r/10>, remark 10, chunk 1 of 0 to 2, score " in first
    assert "customer.name: Acme" in first
    assert text == "Replace the **toner** **cartridge**."
    assert f"] Printer offline <{LINK}>" in document
    assert "-- chunk 1 of 0 to 2, remark 10 (remark.author: kim)" in document
