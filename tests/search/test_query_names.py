"""Names in queries: which forms are names, and that whoever has one comes first, whatever meaning
says."""

import itertools
from types import SimpleNamespace

import pytest

from rag_index.components.embedders.bm25 import Bm25Encoder, Bm25Model, letters
from rag_index.components.stores.protocol import WordCounts
from rag_index.search.names import SoughtNames, looks_like_name, runs_of_keys, runs_of_names
from rag_index.search.question import IndexAnswer
from tests.search.desk import found

NAMES = (
    "MBP-HAM805",
    "0x80070005",
    "2.4.1",
    "10.0.17.250",
    "plan_v2.xlsx",
    "anna.weber2@shop.example",
    "/etc/hosts",
    "getUser",
    "7891-44-6",
    "1571-12-4",
    "1912-24-9",
    "12.345.678",
    "4500-123456",
    "2024/0815/3",
    "978-3-16-148410-0",
    "00:1a:2b:3c:4d:5e",
    "BX80684I7",
    "K4-17b",
    "100234",
    "SRV-ZRH",
    "5.12.23",
    "(SD-100234)",
    "CVE-2021-44228,",
    "AB12",
)
NO_NAMES = (
    "printer",
    "1998",
    "1998-2002",
    "1998/99",
    "2024-05-01",
    "01.05.2024",
    "01.05.24",
    "5/1/24",
    "05/2024",
    "12:30",
    "12:30:45",
    "20kg",
    "1.5GB",
    "90s",
    "2nd",
    "10,000",
    "10.000",
    "1,234.56",
    "12345.67",
    "12%",
    "3",
    "i.e.",
    "e.g.",
    "and/or",
    "boundary-layer",
    "U.S.",
    "...",
    "",
)
RUNS = {
    "invoice INV 2002/5985": ["INV 2002/5985"],
    "EN 50128": ["EN 50128"],
    "norm EN 50128 for trains": ["EN 50128"],
    "B-XY 4711": ["B-XY 4711"],
    "case 12 O 345/22": ["12 O 345/22"],
    "call +49 30 1234567 now": ["+49 30 1234567"],
    "room 312": ["room 312"],
    "Room 312 printer": ["Room 312"],
    "over the last 100 days": [],
    "IT budget 2024": [],
    "500 users at 10,000 km": [],
    "MBP HAM805": ["MBP HAM805"],
    "error 0x80070005 in plan_v2.xlsx": ["0x80070005", "plan_v2.xlsx"],
    "ERROR 404 ON VPN": ["ERROR 404"],
    "what happened in March 1998": [],
    "": [],
}


def test_names_have_a_form_and_dates_amounts_and_words_do_not():
    assert [name for name in NAMES if not looks_like_name(name)] == []
    assert [word for word in NO_NAMES if looks_like_name(word)] == []
    assert {query: list(runs_of_names(query)) for query in RUNS} == RUNS


def test_what_has_letters_and_digits_may_be_a_key_and_a_number_is_none():
    assert runs_of_keys("the state of A-17 today") == ["A-17"]
    for query in (
        "Windows 11",
        "error 404",
        "rebuild 3000 old servers",
        "olympics 1998",
        "4711",
        "about 20kg",
    ):
        assert runs_of_keys(query) == []


def test_numbers_stay_apart_in_a_name():
    assert letters("10.0.6") != letters("1006") != letters("100.6")
    assert letters("cl-fiveam") == letters("CL FIVEAM") == "clfiveam"


PLANTED = {
    "INV 2002/5985": "Please pay INV 2002/5985 soon",
    "7891-44-6": "The substance 7891-44-6 was delivered",
    "B-XY 4711": "The car B-XY 4711 is parked there",
    "+49 30 1234567": "Reach me at +49 30 1234567 today",
    "EN 50128": "Tested according to EN 50128 last week",
}
FILL = "The team looked at it without a result and waits for an answer of the vendor. " * 8
NEAR = (
    "Please pay INV 2002/{n} soon",
    "The substance {n}-44-6 was delivered",
    "The car B-XY {n} is parked there",
    "Reach me at +49 30 {n} today",
    "Tested according to EN {n} last week",
    "Please pay INV 2003/5985 of {n}",
)


def test_a_name_of_several_runs_comes_first_although_its_parts_are_common(blank):
    """Whatever the embedder: the weight of meaning is all but one."""
    rows = [(number, f"{FILL}{text}. {FILL}") for number, text in enumerate(PLANTED.values(), 1)]
    rows += [
        (100 + n, text.format(n=1000 + n))
        for n, text in zip(range(400), itertools.cycle(NEAR), strict=False)
    ]
    blank.fill({"comments": rows})
    with blank.retriever() as retriever:
        for (number, name), weight in itertools.product(enumerate(PLANTED, 1), (None, 0.97)):
            for query in (name, f"{name} problem", f"question about {name}"):
                result = retriever.search_sync(
                    query, indexes=["comments"], limit=3, dense_weight=weight
                )
                assert found(result)[0][1] == str(number), (query, weight)
                assert result.hits[0].names == 1
                assert result.verdict == "", query


def test_rare_plain_words_come_before_chunks_without_any(blank):
    rows = [(n, f"The dog of room {n} sleeps near the stove, as dogs do") for n in range(300)]
    rows += [
        (500, f"{FILL}A fox was seen. {FILL}"),
        (501, f"{FILL}The blue heron stood there. {FILL}"),
    ]
    blank.fill({"comments": rows})
    with blank.retriever() as retriever:
        for query, first in {
            "fox": "500",
            "heron": "501",
            "blue heron": "501",
            "foxes": "500",
        }.items():
            for weight in (None, 0.97):
                result = retriever.search_sync(query, indexes=["comments"], dense_weight=weight)
                assert found(result)[0][1] == first, (query, weight)


def test_a_chunk_that_a_name_alone_has_found_has_the_score_of_its_words(blank):
    rows = [(1, f"{FILL}It concerns order 4500-123456 of the printer. {FILL}")]
    rows += [(n, f"The printer of order {n} is fine, the printer works") for n in range(100, 400)]
    blank.fill({"comments": rows})
    with blank.retriever() as retriever:
        hit = retriever.search_sync("printer order 4500-123456", indexes=["comments"]).hits[0]
        assert (hit.document_id, hit.names) == ("1", 1)
        words_alone = retriever.search_sync(
            "printer order 4500-123456", indexes=["comments"], dense_weight=0
        ).hits[0]
        assert hit.bm25 == pytest.approx(words_alone.bm25, rel=0.01)
        assert hit.bm25 > 0


def test_a_chunk_that_has_the_words_of_a_name_apart_does_not_have_the_name(blank):
    rows = [
        (1, f"{FILL}Please pay INV 2002/5985. {FILL}"),
        (2, "Please pay INV 2003/5985 and 2002/17"),
    ]
    blank.fill({"comments": rows})
    with blank.retriever() as retriever:
        hits = retriever.search_sync("INV 2002/5985", indexes=["comments"]).hits
        assert {hit.document_id: hit.names for hit in hits} == {"1": 1, "2": 0}


def test_where_the_database_hides_documents_no_name_is_looked_up():
    encoder, live = Bm25Encoder(Bm25Model("english")), SimpleNamespace()
    live.encoder = encoder

    def sought(query: str, *, asks: bool) -> SoughtNames:
        words = encoder.words(query)
        counts = WordCounts(1000, {one: 1 for word in words.values() for one in word.dimensions})
        answer = IndexAnswer("orders", live, (), hybrid=True, asks=asks, words=words, counts=counts)
        return SoughtNames.of(answer, query, counts)

    assert sought("order 4500-123456", asks=False).rare
    assert sought("heron", asks=False).plain
    assert sought("order 4500-123456", asks=True) == sought("heron", asks=True) == SoughtNames()
