"""What a query asks for by its form: phrases in quotes, words after a minus, and words as they are."""

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
    '"grösse"': [], '"离线了"': ["202"], '"broken fan"': ["203", "204"], '"broken fan" -acme': ["204"],
    '"g++"': ["205"], '"g"': [], '"no such phrase"': [],
    "printers with a broken fan -umbrella -machine": ["200", "201", "202", "203", "205"],
}  # fmt: skip


def test_a_phrase_must_be_there_and_a_word_after_a_minus_must_not(empty: Desk) -> None:
    empty.fill({"comments": ROWS[::2], "titles": ROWS[1::2]})
    with empty.retriever() as retriever:
        for query, fitting in FITTING.items():
            for weight in (None, 1.0):
                hits = retriever.search_sync(query, dense_weight=weight).hits
                assert sorted(hit.document_id for hit in hits) == fitting, query


def test_a_query_of_nothing_but_operators_is_searched_as_it_stands(empty: Desk) -> None:
    empty.fill({"comments": ROWS})
    with empty.retriever() as retriever:
        for query in ("-printers", '""', '3.5" fan', "broken-fan", f'{"printer " * 12} "no such phrase"'):
            assert len(retriever.search_sync(query).hits) == 10
