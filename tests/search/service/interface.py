"""Everything that a program, an agent and a person see of the service: answers, descriptions and
help.

`python -m tests.search.service.interface` writes `interface.json` anew, after a change that is
meant.
"""

import asyncio
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import httpx
from click.testing import CliRunner

from rag_index.cli import program
from rag_index.core.settings import Settings
from rag_index.errors import DocumentNotFound, IndexBehind, SearchFailed
from rag_index.search import AsOf, Document, Retriever, SearchHit, SearchResult, Verified
from rag_index.search.positions import Known
from rag_index.search.results import ChunkHit, DocumentChunk, Facets, FacetValue
from rag_index.search.service.app import make_app
from rag_index.search.service.mcp_tools import descriptions_of
from rag_index.search.why import Why

FILE = Path(__file__).with_name("interface.json")
HELP = ("search", "verify", "evaluate", "serve", "mcp")
AT = AsOf("2026-11-20T09:16:00Z", 0.4123456789, "watch", "", "completed")
PAYLOAD = {
    "rate": 0.123456789,
    "tiny": 1e-07,
    "large": 1e16,
    "open": True,
    "none": None,
    "text": "caf\u00e9 <b>",
    "list": [0.123456789, 1],
    "inner": {"rate": 0.123456789, "deep": {"rate": 1 / 3}},
}
SHORT_HIT = SearchHit(
    "comments", "1", "comments/1#0:0123456789abcdef", 1 / 3, 1.0, "text", 0, 1, {}
)
WHOLE_HIT = SearchHit(
    "comments",
    "2/a",
    "comments/2%2Fa#3:0123456789abcdef@now",
    2.5e-7,
    0.9876543,
    "more \u2028 text",
    3,
    4,
    PAYLOAD,
    title="A title",
    link="https://example.org/2",
    collapsed=2,
    highlights=("more", "text"),
    part={"name": "note", "id": "7", "link": "https://example.org/2#7"},
    rank=1,
    fused=0.1234567,
    cosine=-0.7654321,
    bm25=0.5,
    soft=1e-05,
    recency=0.25,
    matched=("more",),
    synonyms=("MacBook Pro",),
    chunks=(ChunkHit(3, 0.1234567, "more text"), ChunkHit(0, 0.0, "")),
    rerank_score=-3.1234567,
    exact=True,
    names=2.0,
    key="s2/a",
    by_title=True,
    text_hash="0123",
    by_words=True,
)
SHORT_RESULT = SearchResult((SHORT_HIT,), {"comments": AsOf()})
WHOLE_RESULT = SearchResult(
    (WHOLE_HIT, SHORT_HIT),
    {"comments": AT, "titles": AsOf(not_seen="no run was complete")},
    corrected={"pritner": "printer"},
    synonyms={"mac": ("MacBook Pro", "iMac")},
    offset=10,
    next_offset=20,
    unsure=True,
    nothing_fits=True,
    remark="a remark",
    missing="titles did not answer.",
    errors={"titles": "it is closed"},
    timings_ms={"open": 1.25, "total": 2.123456789},
    fusion="rank",
    dense_weight=0.7,
    collections={"comments": "desk_comments__1"},
    reranked=True,
    rerank_error="timed out",
)
RESULTS = {
    "short": SHORT_RESULT,
    "whole": WHOLE_RESULT,
    "nothing": SearchResult((), {}),
    "late": IndexBehind("comments is too old", {"comments": {"at": None}}),
    "failed": SearchFailed("it is closed", {"comments": "it is closed"}),
}
SHORT_CHUNK, WHOLE_CHUNK = (
    DocumentChunk(0, "text"),
    DocumentChunk(2, "more", PAYLOAD, {"name": "note"}, ("more",)),
)
DOCUMENTS = {
    "short": Document("comments", "short", "cited", {}, (SHORT_CHUNK,), AsOf(), 1, None),
    "whole": Document(
        "comments",
        "whole",
        "cited",
        PAYLOAD,
        (SHORT_CHUNK, WHOLE_CHUNK),
        AT,
        4,
        3,
        "A title",
        "https://example.org",
        "key",
        "hash",
        "seal",
        2,
    ),
    "none": DocumentNotFound("index comments has no document 'none'"),
}
VERIFIED = {
    "short": Verified("cited", "unchanged", AsOf()),
    "whole": Verified("cited", "changed", AT, "then", "now", "new"),
}
FACETS = {
    None: Facets({"priority": (FacetValue("high", 2), FacetValue("low", 1)), "author": ()}),
    5: Facets({}, {"titles": "it is closed"}),
}
WHYS = {
    "short": Why("comments", "short", "unknown", "There is no such document for you."),
    "whole": Why(
        "comments",
        "whole",
        "rank",
        "said",
        "remedy",
        12,
        1 / 3,
        2 / 3,
        ("a",),
        ("b", "c"),
        {"b": "bee", "c": "sea"},
    ),
}
ALL = {
    "query": "printer",
    "indexes": ["comments", "titles"],
    "limit": 20,
    "offset": 5,
    "filter": {"priority": "high"},
    "timeout": 2.5,
    "dense_weight": 0.25,
    "rerank": False,
    "min_relevance": 0.5,
    "collapse": "text",
    "order": "-number",
    "exact": True,
    "max_age": "10 s",
}
FAULTY = (
    {},
    {"query": ""},
    {"query": "x" * 10_001},
    {"limit": 0},
    {"limit": 1001},
    {"limit": "many"},
    {"limit": None},
    {"offset": -1},
    {"offset": 1000},
    {"timeout": 0},
    {"timeout": "soon"},
    {"dense_weight": 1.1},
    {"dense_weight": -1},
    {"min_relevance": 2},
    {"rerank": 5},
    {"collapse": ""},
    {"collapse": "x" * 201},
    {"order": ""},
    {"exact": None},
    {"exact": "maybe"},
    {"max_age": []},
    {"like": "x" * 10_001},
    {"indexes": "comments"},
    {"indexes": [5]},
    {"indexes": ["x"] * 1001},
    {"filter": 5},
    {"groups": ["staff"]},
    {"explain": "maybe"},
)
REQUESTS: list[tuple[str, str, object]] = [
    *(
        ("POST", "/search", {"query": name, "explain": explain})
        for name in RESULTS
        for explain in (False, True)
    ),
    ("POST", "/search", ALL),
    ("POST", "/search", {"like": "comments/4711"}),
    ("POST", "/search", {"like": "comments/4711", "query": "printer"}),
    (
        "POST",
        "/search",
        {**dict.fromkeys(ALL), "query": "short", "limit": 1, "offset": 0, "exact": False},
    ),
    ("POST", "/search", {"query": "short", "filter": ["priority=high", "!author"], "max_age": 10}),
    *(("POST", "/search", {**({"query": "short"} if fault else {}), **fault}) for fault in FAULTY),
    ("GET", "/search?query=short", None),
    ("GET", "/search?query=whole&explain=true", None),
    (
        "GET",
        "/search?query=short&indexes=comments&indexes=titles&limit=20&offset=5&filter=a%3Db&filter=%21c",
        None,
    ),
    (
        "GET",
        "/search?query=short&timeout=2.5&dense_weight=0.25&rerank=false&min_relevance=0.5&collapse=text",
        None,
    ),
    ("GET", "/search?query=short&order=-number&exact=true&max_age=10+s", None),
    ("GET", "/search?like=comments/4711&max_age=10", None),
    ("GET", "/search", None),
    ("GET", "/search?query=short&limit=0&offset=-1&timeout=x&unknown=1", None),
    *(("GET", f"/documents/comments/{name}", None) for name in DOCUMENTS),
    ("GET", "/documents/comments/whole?first_chunk=1&max_chars=50", None),
    ("GET", "/documents/comments/?document_id=short&around=0", None),
    ("GET", "/documents/comments/whole?first_chunk=1&around=2", None),
    ("POST", "/facets", {}),
    (
        "POST",
        "/facets",
        {"limit": 5, "fields": ["priority"], "indexes": ["titles"], "filter": "a=b", "timeout": 3},
    ),
    ("POST", "/facets", {"limit": 0, "fields": [], "timeout": 0, "indexes": 5}),
    ("POST", "/verify", {"citations": ["short", "whole"]}),
    ("POST", "/verify", {"citations": []}),
    *(("POST", "/why", {"query": "printer", "document": f"comments/{name}"}) for name in WHYS),
    (
        "POST",
        "/why",
        {
            "query": "x",
            "document": "comments/short",
            "filter": {"a": 1},
            "groups": ["staff"],
            "collapse": "text",
            "limit": 5,
        },
    ),
    ("POST", "/why", {"query": "x", "document": "comments", "limit": 0, "collapse": ""}),
    ("GET", "/indexes", None),
    ("GET", "/healthz", None),
    ("GET", "/readyz", None),
    ("GET", "/nothing", None),
]
SQL = {"table": "t", "key": "id", "text": "body"}
PRIVATE = {"name": "private", **SQL, "access": "tenant", "payload": ["tenant"]}
COMMENTS = {
    "name": "comments",
    **SQL,
    "payload": ["priority", "created_at", "number"],
    "labels": {"number": "Number"},
    "payload_indexes": {"priority": "keyword", "created_at": "datetime", "number": "integer"},
}


def settings() -> Settings:
    indexes = [COMMENTS, {"name": "titles", "kind": "confluence"}, PRIVATE]
    return Settings.model_validate({"source": {"url": "sqlite://"}, "indexes": indexes})


class Answers:
    """A retriever that answers with what stands above, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def search(self, query: str, **options):
        self.asked.append(f"search {query!r} {sorted(options.items())}")
        return raised(RESULTS.get(query, SHORT_RESULT))

    async def document(self, index: str, document_id: str, *, groups, choose=None, max_chars=None):
        self.asked.append(
            f"document {index} {document_id} {max_chars} {choose and choose(range(4))}"
        )
        return raised(DOCUMENTS[document_id])

    async def facets(self, **options):
        self.asked.append(f"facets {sorted(options.items())}")
        return FACETS.get(options["limit"], FACETS[None])

    async def verify(self, citation: str, **options):
        return VERIFIED[citation]

    async def why(self, query: str, document: str, **options):
        self.asked.append(f"why {query!r} {document} {sorted(options.items())}")
        return WHYS[document.partition("/")[2]]

    async def checked(self, *, counts: bool = False):
        known = mock.create_autospec(Known, instance=True)
        known.live, known.problems = {"comments": "desk_comments__1"}, {}
        known.totals = {"comments": SimpleNamespace(documents=200, points=214)}
        known.as_of = lambda index, newest: AT if index == "comments" else AsOf()
        return known

    def closed(self, caller) -> list[str]:
        return ["private"]


def raised(found):
    if isinstance(found, Exception):
        raise found
    return found


async def answers() -> list[dict[str, object]]:
    """Ask everything, and return each request with the options that reached the retriever and the
    answer's bytes."""
    found = []
    retriever, told = Retriever(settings()), Answers()
    for name in ("search", "document", "facets", "verify", "why", "checked", "closed"):
        setattr(retriever, name, getattr(told, name))
    transport = httpx.ASGITransport(make_app(settings(), retriever), client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for method, path, body in REQUESTS:
            answer = await client.request(method, path, json=body)
            shown = json.dumps(body) if body is not None else ""
            found.append(
                {
                    "request": f"{method} {path} {shown[:300]}",
                    "asked": told.asked,
                    "status": answer.status_code,
                    "type": answer.headers["content-type"],
                    "answer": answer.text,
                }
            )
            told.asked = []
        described = (await client.get("/openapi.json")).json()
    retriever.close()
    return [*found, {"paths": described["paths"], "components": described["components"]}]


def interface() -> dict[str, object]:
    """Return all of it."""
    *asked, described = asyncio.run(answers())
    width = {"terminal_width": 80}
    helped = {
        name: CliRunner().invoke(program, [name, "--help"], **width).output.splitlines()
        for name in HELP
    }
    tools = {
        str(reranker): descriptions_of(settings(), reranker=reranker) for reranker in (False, True)
    }
    found = {"answers": asked, "openapi": described, "tools": tools, "help": helped}
    return json.loads(json.dumps(found))


if __name__ == "__main__":
    where = Path(sys.argv[1]) if sys.argv[1:] else FILE
    where.write_text(json.dumps(interface(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
