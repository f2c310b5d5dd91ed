"""Page after page of a search: each document once, in one order, down to the last, which is said."""

import random
from collections.abc import Iterator

import pytest

from rag_index import Retriever
from rag_index.core.documents.groups import access_part
from rag_index.errors import SettingsError
from rag_index.search.retriever import FURTHER
from tests.search.desk import Desk, found

WORDS = "printer network password invoice keyboard server monitor license update backup account mail".split()
QUERY = "backup of the mail server"


def text(seed: int) -> str:
    """Return a text of few words, some of several chunks, so that no search sees all chunks."""
    return " ".join(random.Random(seed).choices(WORDS, k=90 if seed % 7 == 0 else 8))


MANY = {
    "comments": [
        (n, text(n), {"priority": f"p{n % 25}", "number": n, "_rag": access_part(("ab"[n % 2],))})
        for n in range(1, 141)
    ],
    "titles": [(f"t{n}", text(-n), {"priority": f"p{n % 25}", "number": -n}) for n in range(1, 61)],
}


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Retriever]:
    names, more = tuple(MANY), {"comments": 'access = "tenant"'}
    with Desk(tmp_path_factory.mktemp("pages"), names=names, more=more).fill(MANY).retriever() as retriever:
        yield retriever


def walk(retriever: Retriever, limit: int, query: str = QUERY, **options: object) -> list[tuple[str, str]]:
    """Return what the pages of a search have. Each but the last has `limit` documents, and says where the next is."""
    every, offset = list[tuple[str, str]](), 0
    while True:
        page = retriever.search_sync(query, limit=limit, offset=offset, **options)
        every += found(page)
        if page.next_offset is None:
            assert len(every) == len(set(every)), "a document comes once"
            return every
        offset = page.next_offset
        assert offset == len(every), "whoever adds the limit goes on at the same place"


@pytest.mark.parametrize(
    ("options", "documents"),
    [
        ({"groups": ["a", "b"]}, 200),
        ({"groups": ["a", "b"], "dense_weight": 1.0}, 200),
        ({"groups": ["a"]}, 130),
        ({"groups": [], "filter": "number<-30"}, 30),
        ({"groups": ["b"], "collapse": "priority"}, 25),
        ({"groups": ["a"], "like": "titles/t9", "query": ""}, 129),
    ],
)
def test_pages_have_each_document_once_and_begin_with_what_a_search_returns(
    retriever: Retriever, options: dict[str, object], documents: int
) -> None:
    query = options.get("query", QUERY)
    asked = {name: value for name, value in options.items() if name != "query"}
    every = walk(retriever, 40, query, **asked)
    assert len(every) == documents, "down to the last"
    assert every[:40] == found(retriever.search_sync(query, limit=40, **asked))


def test_a_page_says_that_it_is_the_last_and_where_no_search_goes(retriever: Retriever) -> None:
    first = retriever.search_sync(QUERY, groups=["a"])
    assert (first.to_json()["next_offset"], "offset" in first.to_json()) == (10, False)
    last = retriever.search_sync(QUERY, offset=120, groups=["a"])
    assert (len(last.hits), last.next_offset, last.missing) == (10, None, "")
    beyond = retriever.search_sync(QUERY, offset=130, groups=["a"])
    assert (beyond.hits, beyond.next_offset, beyond.verdict) == ((), None, "No further documents.")
    with pytest.raises(SettingsError, match=r"offset is from 0 to 990, not 991: a search goes 1,000 documents deep"):
        retriever.search_sync(QUERY, offset=991)
    with pytest.raises(SettingsError, match="offset is from 0 to 990, not -1"):
        retriever.search_sync(QUERY, offset=-1)


def test_what_fits_is_put_in_order_once_and_the_end_of_it_is_said(retriever: Retriever) -> None:
    numbers, offset = list[int](), 0
    while offset is not None:
        page = retriever.search_sync("mail", limit=10, order="number", groups=["a", "b"], offset=offset)
        numbers += [hit.payload["number"] for hit in page.hits]
        offset = page.next_offset
    assert numbers == sorted(numbers)
    assert len(numbers) == 30
    assert page.missing == FURTHER


def test_documents_that_are_less_relevant_end_the_pages(retriever: Retriever) -> None:
    every = retriever.search_sync(QUERY, limit=40).hits
    least = sorted(hit.relevance for hit in every)[20]
    some = walk(retriever, 10, min_relevance=least)
    assert some == [(hit.index, hit.document_id) for hit in every if hit.relevance >= least][: len(some)]
