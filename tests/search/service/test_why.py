"""Why a document is not found is told over HTTP and MCP, to callers with all rights alone."""

import asyncio

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from rag_index.search import ALL_GROUPS
from rag_index.search.service.tokens import new_token, token_line
from tests.etl.plain import run_plain
from tests.project import SETTINGS, Project
from tests.search.service.live import Live
from tests.search.service.test_mcp import text_of

ADMIN, STAFF = new_token(), new_token()
LINES = [token_line("admin", ADMIN, ALL_GROUPS), token_line("ann", STAFF, ["author 1"])]
RIGHTS = 'access = "author"\n[serve]\ntokens = {lines}'
ASKED = {"query": "printer", "document": "notes/999"}


def served(folder, more=""):
    project = Project(folder).fill(9)
    project.write_settings(SETTINGS.format(extra="") + more)
    run_plain(project)
    return Live(project.settings)


def test_a_local_service_without_tokens_tells_it(tmp_path):
    with served(tmp_path) as live, httpx.Client(base_url=live.url, timeout=60) as client:
        found = client.post("/why", json=ASKED)
        assert (found.status_code, found.json()["reason"]) == (200, "not_in_table")
        assert client.post("/why", json={**ASKED, "document": "notes"}).status_code == 422
        assert client.post("/why", json={**ASKED, "document": "other/1"}).status_code == 400
        assert client.post("/why", json={**ASKED, "groups": ["author 1"]}).status_code == 403


@pytest.mark.parametrize("document", ["notes/999", "notes/2"])
def test_a_token_with_all_rights_is_told_and_another_is_refused(tmp_path, document):
    with (
        served(tmp_path, RIGHTS.format(lines=LINES).replace("'", '"')) as live,
        httpx.Client(base_url=live.url, timeout=60) as client,
    ):

        def why(token, **more):
            return client.post("/why", json={**ASKED, "document": document, **more}, headers=bearer(token))

        refused = why(STAFF)
        assert (refused.status_code, refused.json()["code"]) == (403, "NotAllowed")
        assert document.partition("/")[2] not in refused.text
        reasons = {"notes/999": "not_in_table", "notes/2": "access"}
        assert why(ADMIN, groups=["author 1"]).json()["reason"] == reasons[document]
        assert client.post("/search", json={"query": "printer"}, headers=bearer(ADMIN)).json()["hits"]


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def asked_by_an_agent(url, token):
    """Return the names of the tools, and what the tool answers."""

    async def talk():
        async with (
            httpx2.AsyncClient(headers=bearer(token), timeout=60) as http,
            Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
        ):
            names = [tool.name for tool in (await client.list_tools()).tools]
            return names, await client.call_tool("why_not_found", ASKED)

    return asyncio.run(talk())


def test_agents_see_the_tool_if_they_may_use_it(tmp_path):
    with served(tmp_path, RIGHTS.format(lines=LINES).replace("'", '"')) as live:
        for token, known in ((ADMIN, True), (STAFF, False)):
            names, answer = asked_by_an_agent(live.url, token)
            assert ("why_not_found" in names) is known
            assert ("has no 999" in text_of(answer)) is known
            assert answer.is_error is not known
