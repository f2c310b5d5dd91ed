"""Random callers over HTTP and MCP are told of nothing that is not for the groups of their
token."""

import asyncio
import json
import random
from typing import Any

import httpx
import pytest

from rag_index.core.settings import load_settings
from rag_index.search.service.tokens import token_line
from tests.fakes.qdrant import FakeQdrant
from tests.project import WORDS
from tests.search.desk import Desk
from tests.search.secret_documents import SECRETS, check_told, guard, random_filter
from tests.search.service.live import Live
from tests.search.service.test_mcp import by_token

CALLERS: list[list[str]] = [
    [],
    ["staff"],
    ["board", "7"],
    ["a,b", "Grüße"],
    ["STAFF", "audit"],
    ["nobody"],
]
TOKENS = [f"rag_{number}{'x' * 42}" for number in range(len(CALLERS))]


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """A service over documents for groups, with a token for each caller."""
    with FakeQdrant() as qdrant:
        desk = guard(Desk(tmp_path_factory.mktemp("desk"), f'[store]\nurl = "{qdrant.url}"'))
        lines = [token_line(f"caller{n}", TOKENS[n], groups) for n, groups in enumerate(CALLERS)]
        with Live(load_settings(desk.config, serve={"tokens": lines})) as live:
            yield live


def search(chance: random.Random) -> dict[str, Any]:
    secret = chance.choice(SECRETS)
    asked: dict[str, Any] = {
        "query": chance.choice([secret.mark, " ".join(chance.choices(WORDS, k=3))])
    }
    if indexes := chance.choice([None, [secret.index], ["comments", "solutions"]]):
        asked["indexes"] = indexes
    if wanted := random_filter(chance, secret):
        asked["filter"] = wanted
    return {**asked, "limit": chance.choice([1, 20, 50])}


async def ask_http(client: httpx.AsyncClient, chance: random.Random, caller: int) -> str:
    """Do something with the token of a caller; return all that the caller is told."""
    secret = chance.choice(SECRETS)
    headers = {"Authorization": f"Bearer {TOKENS[caller]}"}
    kind = chance.random()
    if kind < 0.3:
        answer = await client.get(f"/documents/{secret.index}/{secret.number}", headers=headers)
    elif kind < 0.4:
        answer = await client.get(
            chance.choice(["/indexes", "/metrics", "/openapi.json", "/readyz"]), headers=headers
        )
    elif kind < 0.5:
        wanted = {"indexes": [secret.index], "limit": 100, "filter": random_filter(chance, secret)}
        answer = await client.post("/facets", json=wanted, headers=headers)
    else:
        answer = await client.post(
            "/search", json={**search(chance), "explain": True}, headers=headers
        )
    assert answer.status_code < 500, answer.text
    return (
        json.dumps(answer.json(), ensure_ascii=False)
        if "json" in answer.headers["content-type"]
        else answer.text
    )


async def check_http(url: str, number: int, seed: int) -> int:
    """Ask `number` times over HTTP and return how many documents callers were told of."""
    chance, seen = random.Random(seed), 0
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        for _ in range(number):
            caller = chance.randrange(len(CALLERS))
            seen += check_told(await ask_http(client, chance, caller), CALLERS[caller])
    return seen


async def check_mcp(url: str, number: int, seed: int) -> int:
    """Call tools `number` times and return how many documents agents were told of."""
    chance, seen = random.Random(seed), 0
    for token, groups in zip(TOKENS, CALLERS, strict=True):
        async with by_token(url, token) as client:
            for _ in range(number // len(CALLERS)):
                secret = chance.choice(SECRETS)
                one = {"index": secret.index, "document_id": str(secret.number)}
                calls = [("get_document", one), ("search", search(chance)), ("list_indexes", {})]
                answer = await client.call_tool(*chance.choices(calls, [3, 6, 1])[0])
                seen += check_told("".join(part.text for part in answer.content), groups)
    return seen


@pytest.mark.long
def test_random_callers_over_http(live):
    assert asyncio.run(check_http(live.url, 25, seed=3)) > 20


def test_random_agents(live):
    assert asyncio.run(check_mcp(live.url, 18, seed=4)) > 12


def test_a_document_that_is_not_for_a_caller_is_not_there(live):
    secret = next(one for one in SECRETS if one.index == "comments" and one.groups == ("staff",))
    path = f"/documents/comments/{secret.number}"
    with httpx.Client(base_url=live.url, timeout=60) as client:

        def get(path, caller):
            return client.get(path, headers={"Authorization": f"Bearer {TOKENS[caller]}"})

        assert get(path, 1).json()["document_id"] == str(secret.number)
        part = "?first_chunk=99"
        assert get(f"{path}{part}", 1).status_code == 400, "it has no such chunk"
        for caller, asked in ((0, ""), (2, ""), (5, ""), (2, part)):
            hidden, missing = (
                get(f"{path}{asked}", caller),
                get(f"/documents/comments/1000{asked}", caller),
            )
            assert (hidden.status_code, missing.status_code) == (404, 404)
            assert hidden.text.replace(str(secret.number), "1000") == missing.text
        for caller, groups in enumerate(CALLERS):
            bearer = {"Authorization": f"Bearer {TOKENS[caller]}"}
            told = client.post(
                "/facets", json={"indexes": ["comments"], "limit": 100}, headers=bearer
            ).text
            assert check_told(told, groups) == sum(
                one.index == "comments" and one.is_for(groups) for one in SECRETS
            )
        counts = {one["name"]: one["documents"] for one in get("/indexes", 1).json()["indexes"]}
        assert (counts["comments"], counts["solutions"]) == (None, None)
