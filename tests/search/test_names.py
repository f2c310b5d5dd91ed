"""What stands in a query: names as a whole, first lines, compounds, phrases, words after a minus;
and its deadline."""

import pytest

from rag_index.components.embedders.bm25 import Bm25Encoder, Bm25Model
from rag_index.errors import SearchTimedOut
from rag_index.search.concurrency import Deadline
from rag_index.search.soft_match import near_scores, soft_scores
from tests.search.desk import found

COMMON = [
    ("cl-fiveam", "A regression testing framework"),
    ("t-2", "To be or not to be\nA play."),
    ("t-3", "Let's Get It Up\nA song."),
    ("t-4", "打印机的使用\n说明"),
    ("t-5", "Die Übergabe\nein Text"),
    *(
        (
            n,
            (
                "Testing cl, fiveam and that it is to be up or not: let it get let's 打印 使用"
                f" 的使 die Ubergab {n}"
            ),
        )
        for n in range(80)
    ),
]
FIRST = {
    "cl-fiveam": "cl-fiveam",
    "CL FIVEAM": "cl-fiveam",
    "to be, or not to be": "t-2",
    "lets get it up": "t-3",
    "打印机的使用": "t-4",
    "die ubergabe": "t-5",
    "17": "17",
}
SIGNED = [
    (1, "ORA-01017: invalid password; logon denied"),
    (2, "Version 6.1.55 of the kernel fixes a deadlock"),
    (3, "CVE-2021-45046 is in log4j"),
    (4, "Call json_decode to read the answer"),
    (5, "The function jsonDecode reads it"),
    (6, "We compile with g++"),
    (7, "A letter g"),
    *(
        (n, f"The printer of room {n} prints blank pages, since toner {n} is old")
        for n in range(20, 120)
    ),
]
FITTING = {
    "ORA-01018": [],
    "ora-01017": ["1"],
    "6.1.56": [],
    "6.1.55": ["2"],
    "CVE-2021-44228": [],
    "CVE-2021-45046": ["3"],
    "jsonDecode": ["4", "5"],
    "json_decode": ["4", "5"],
    "g++": ["6"],
}
RARE = {
    "10.4.17.250": "The gateway 10.4.17.250 answers",
    "00:1a:2b:3c:4d:5e": "Seen 00:1A:2B:3C:4D:5E on port three",
    "anna.weber2@shop.example": "Sent by anna.weber2@shop.example",
    "plan_v2.xlsx": "It concerns plan_v2.xlsx alone",
    "https://wiki.example/token/078": "See https://wiki.example/token/078 for more",
    "4711-0815": "Order 4711-0815 now",
    "HttpClientFactory": "Made by HttpClientFactory",
    "SD-100234": "As SD-100234",
    "0x80070005": "Ended by 0x80070005",
}
LONG = (
    "It works for a while and then stops, as the team found out after the last maintenance. " * 12
)
ROWS = [
    *((n, f"the state of the art of machine {n}, which is not what it was") for n in range(120)),
    (200, "What is not, is not. To be, or not to be: that is the question."),
    (201, "Das ist nicht der Weg; Straßenbahn und Größe"),
    (202, "打印机离线了怎么办"),
    (203, "Printers by Acme, with a broken fan"),
    (204, "Printers by Umbrella, with a broken fan"),
    (205, "We build it with g++ and make."),
]
PHRASED = {
    '"to be or not to be"': ["200"],
    'machine "that is the question"': ["200"],
    "„nicht der weg“": ["201"],
    '"grösse"': ["201"],
    '"STRASSENBAHN"': ["201"],
    '"离线了"': ["202"],
    '"broken fan"': ["203", "204"],
    '"broken fan" -acme': ["204"],
    '"g++"': ["205"],
    '"g"': [],
    '"no such phrase"': [],
    "printers with a broken fan -umbrella -machine": ["200", "201", "202", "203", "205"],
}
FOLDED = {
    "Hauptstra\u00dfe 5": "HAUPTSTRASSE 5",
    "\u0141\u00f3d\u017a fabryka": "lodz fabryka",
    "M\u00f8ller": "MOLLER",
    "\u0110or\u0111e": "dorde",
    "\u0152uvre compl\u00e8te": "oeuvre complete",
    "\u00c6r\u00f8 Havn": "aero havn",
    "\u00de\u00f3r": "thor",
    "DI\u015e KAPI": "d\u0131\u015f kap\u0131",
    "\u0130STANBUL L\u0130MANI": "istanbul limani",
    "\u039f\u0394\u039f\u03a3": "\u03bf\u03b4\u03cc\u03c2",
    "\ufb01nal": "final",
    "cafe\u0301 noir": "caf\u00e9 noir",
    "\u0421\u0435\u0440\u0433\u0435\u0301\u0439": "\u0441\u0435\u0440\u0433\u0435\u0439",
    "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd": "\u05e9\u05dc\u05d5\u05dd",
    "\u018fliyev": "\u0259liyev",
    "Ne\u00b5ron": "ne\u03bcron",
    "so\u00adft": "soft",
    "\u00e9t\u00e9": "e\u0301te\u0301",
    "\uff21\uff22\uff23 Papier": "abc papier",
}
"""Words, and the same in another form."""


def test_a_key_or_a_first_line_is_first_however_common_its_words_are(blank):
    blank.fill({"comments": COMMON[::2], "titles": COMMON[1::2]})
    with blank.retriever() as retriever:
        for query, first in FIRST.items():
            for weight in (None, 0.0):
                result = retriever.search_sync(query, dense_weight=weight)
                assert found(result)[0][1] == first, query
                assert result.hits[0].score >= 1 >= result.hits[1].score


def test_the_deadline_of_a_search_ends_the_comparison_of_texts():
    with pytest.raises(SearchTimedOut, match="while texts were compared"):
        soft_scores({"alpha": 1.0}, ["alpha"], deadline=Deadline.after(-1))
    with pytest.raises(SearchTimedOut, match="while texts were compared"):
        near_scores(
            Bm25Encoder(Bm25Model("english")),
            [],
            [1.0, 1.0],
            ["alpha"],
            deadline=Deadline.after(-1),
        )


def test_a_compound_counts_as_a_whole_and_a_word_with_its_signs(blank):
    blank.fill({"comments": SIGNED})
    with blank.retriever() as retriever:
        for query, fitting in FITTING.items():
            result = retriever.search_sync(query, limit=5, indexes=["comments"])
            assert (
                sorted(hit.document_id for hit in result.hits if hit.relevance >= 0.2) == fitting
            ), query
            assert all(
                hit.matched == ((query,) if hit.document_id in fitting else ())
                for hit in result.hits
            )
            assert (result.unsure or result.nothing_fits) is not bool(fitting)


def test_a_rare_name_comes_first_alone_and_beside_words_also_in_a_long_text(blank):
    named = [(number, f"{LONG}{text}. {LONG}") for number, text in enumerate(RARE.values(), 1)]
    near = [
        "Order number of the device",
        "Mail of anna.weber2 and others",
        "The token https://wiki.example/token/079",
    ]
    others = [(number, f"{near[number % 3]}, wrong since {number}") for number in range(100, 300)]
    blank.fill({"comments": [*named, *others]})
    with blank.retriever() as retriever:
        for number, name in enumerate(RARE, 1):
            for query in (name, f"wrong order of the device {name}", f"{name.lower()} mail"):
                result = retriever.search_sync(query, indexes=["comments"], limit=3)
                assert result.hits[0].document_id == str(number), query
                assert result.verdict == "", query


def test_a_phrase_must_be_there_and_a_word_after_a_minus_must_not(blank):
    blank.fill({"comments": ROWS[::2], "titles": ROWS[1::2]})
    with blank.retriever() as retriever:
        for query, fitting in PHRASED.items():
            for weight in (None, 1.0):
                hits = retriever.search_sync(query, dense_weight=weight).hits
                assert sorted(hit.document_id for hit in hits) == fitting, query


@pytest.mark.long
def test_words_in_quotes_and_after_a_minus_have_all_forms_that_words_have(blank):
    blank.fill(
        {"comments": [(n, f"Der Eintrag nennt {text} hier") for n, text in enumerate(FOLDED)]}
    )
    with blank.retriever() as retriever:
        for n, forms in enumerate(FOLDED.items()):
            for form in forms:
                for query in (f'"{form}"', f"\uff02{form}\uff02"):
                    assert [hit.document_id for hit in retriever.search_sync(query).hits] == [
                        str(n)
                    ], query
                found = retriever.search_sync(f"Eintrag -{form.split()[0]}", limit=50).hits
                assert {hit.document_id for hit in found} == {
                    str(one) for one in range(len(FOLDED)) if one != n
                }, form
