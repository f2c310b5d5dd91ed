"""Whatever is asked, the answer is JSON or a problem that is the caller's, and never an unexpected error."""

import asyncio
import json
from urllib.parse import quote

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_index.errors import SettingsError
from tests.fakes.hosts import VirtualTimeLoop
from tests.search.service.in_memory import ask, guarded

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates().map(str)
    | st.sampled_from(["printer", "high", "1", "titles", "2024-01-01"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["gte", "lt", "eq", "any", "not", "exists", "x"]) | st.text(max_size=5), inner,
                      max_size=3),
    max_leaves=6,
)  # fmt: skip
FIELDS = st.sampled_from(["priority", "number", "created_at", "author", "tenant", "tenant.inner", "_rag.key", ""])
FILTERS = st.dictionaries(FIELDS | st.text(max_size=5), VALUES, max_size=3) | st.lists(st.text(max_size=20), max_size=3)
BODIES = st.fixed_dictionaries(
    {"query": st.text(min_size=1, max_size=50)},
    optional={
        "indexes": st.lists(st.sampled_from(["comments", "titles"]), max_size=3) | VALUES,
        "limit": st.integers(1, 1000) | VALUES,
        "filter": FILTERS | VALUES,
        "timeout": st.floats(0.5, 5) | VALUES,
        "dense_weight": st.floats(0, 1) | VALUES,
        "rerank": st.booleans() | VALUES,
        "explain": st.booleans() | VALUES,
    },
)


def check(answer: httpx.Response) -> None:
    if answer.status_code == 307:  # the address without its last slash, or with one
        assert answer.headers["location"].startswith(str(answer.url.copy_with(raw_path=b"/")))
        return
    assert answer.status_code in (200, 400, 404, 405, 422), answer.text
    kind = answer.headers["content-type"]
    if answer.status_code == 200 and kind != "text/html; charset=utf-8":  # which is the page
        answer.json()
    elif answer.status_code != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
PATHS = st.one_of(
    TEXT.map(lambda text: f"/documents/comments/{quote(text)}"),
    TEXT.map(lambda text: f"/documents/{quote(text)}/1"),
    TEXT.map(lambda text: f"/{quote(text)}"),
    st.sampled_from(["/search", "/indexes", "/documents"]),
)
PARAMETERS = st.dictionaries(
    st.sampled_from(["query", "filter", "limit", "indexes", "timeout", "rerank", "explain"]) | TEXT, TEXT, max_size=4
)
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH"])


@settings(max_examples=15)
@given(body=BODIES)
def test_any_search_is_answered(client, body):
    content = json.dumps(body).encode()  # NaN and Infinity too, as careless programs send them
    check(client.post("/search", content=content, headers={"Content-Type": "application/json"}))


@settings(max_examples=15)
@given(method=METHODS, path=PATHS, parameters=PARAMETERS)
def test_any_address_is_answered(client, method, path, parameters):
    check(client.request(method, path, params=parameters))


PLACES = 4
ENDS = {
    "answered": (200, {}), "refused": (400, {}), "broken": (500, {}), "slow": (504, {}),
    "no body": (504, {"body": None}), "too large": (413, {"body": b"x" * 200}), "gone": (0, {"gone": True}),
    "gone before": (0, {"body": None, "gone": True}),
}  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(ends=st.lists(st.sampled_from(list(ENDS)), min_size=1, max_size=2 * PLACES))
def test_whatever_becomes_of_requests_their_places_are_free_again(ends):
    async def answer(scope) -> int:
        match scope["path"]:
            case "/refused":
                raise SettingsError("wrong")
            case "/broken":
                raise ValueError("unexpected")
            case "/slow" | "/gone":
                await asyncio.Event().wait()
            case "/together":
                await together.wait()
        return 200

    async def main() -> None:
        statuses = [await ask(guard, f"/{end}", **ENDS[end][1]) for end in ends]
        assert statuses == [ENDS[end][0] for end in ends]
        asked = [asyncio.ensure_future(ask(guard, "/together", client=("127.0.0.1", n))) for n in range(PLACES)]
        await asyncio.sleep(0.01)
        assert await ask(guard) == 503, "all places are taken"
        assert await ask(guard, "/healthz") == 200, "but those of probes"
        together.set()
        assert await asyncio.gather(*asked) == [200] * PLACES

    together = asyncio.Event()
    guard = guarded(answer, max_requests=PLACES, max_body=100)
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())
