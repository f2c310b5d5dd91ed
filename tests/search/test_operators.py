"""What a query asks for by its form: phrases in quotes, words after a minus, and words as they are."""

import pytest

from tests.search.desk import Desk

ROWS = [
    *((n, f"the state of the art of machine {n}, which is not what it was") for n in range(120)),
    (200, "What is not, is not. To be, or not to be: that is the question."),
    (201, "Das ist nicht der Weg; Straßenbahn und Größe"),
    (202, "打印机离线了怎么办"),
    (203, "Printers by Acme, with a broken fan"),
    (204, "Printers by Umbrella, with a broken fan"),
    (205, "We build it with g++ and make."),
]


FITTING = {
    '"to be or not to be"': ["200"], 'machine "that is the question"': ["200"], "„nicht der weg“": ["201"],
    '"grösse"': ["201"], '"STRASSENBAHN"': ["201"],
    '"离线了"': ["202"], '"broken fan"': ["203", "204"], '"broken fan" -acme': ["204"],
    '"g++"': ["205"], '"g"': [], '"no such phrase"': [],
    "printers with a broken fan -umbrella -machine": ["200", "201", "202", "203", "205"],
}  # fmt: skip


def test_a_phrase_must_be_there_and_a_word_after_a_minus_must_not(blank: Desk) -> None:
    blank.fill({"comments": ROWS[::2], "titles": ROWS[1::2]})
    with blank.retriever() as retriever:
        for query, fitting in FITTING.items():
            for weight in (None, 1.0):
                hits = retriever.search_sync(query, dense_weight=weight).hits
                assert sorted(hit.document_id for hit in hits) == fitting, query


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


@pytest.mark.long
def test_words_in_quotes_and_after_a_minus_have_all_forms_that_words_have(blank: Desk) -> None:
    blank.fill({"comments": [(n, f"Der Eintrag nennt {text} hier") for n, text in enumerate(FOLDED)]})
    with blank.retriever() as retriever:
        for n, forms in enumerate(FOLDED.items()):
            for form in forms:
                for query in (f'"{form}"', f"\uff02{form}\uff02"):
                    assert [hit.document_id for hit in retriever.search_sync(query).hits] == [str(n)], query
                found = retriever.search_sync(f"Eintrag -{form.split()[0]}", limit=50).hits
                assert {hit.document_id for hit in found} == {str(one) for one in range(len(FOLDED)) if one != n}, form
