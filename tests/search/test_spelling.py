"""Typing errors: a word that nothing has is searched for as one that documents have which the caller may see."""

from pathlib import Path

from rag_index.core.documents.groups import access_part
from rag_index.search import ALL_GROUPS
from rag_index.search.fusion import ranked
from tests.search.desk import Desk, found

ROWS = [
    *((n, f"The printer of room {n} prints blank pages") for n in range(30)),
    (40, "A framework for web pages in Python"),
    (41, "Deploying to the Kubernetes cluster"),
    (42, "Настройка принтера в бухгалтерии"),
]


def test_a_typing_error_finds_what_it_means_and_the_answer_says_so(blank: Desk) -> None:
    blank.fill({"comments": ROWS[:30], "solutions": ROWS[30:]})
    with blank.retriever() as retriever:
        for query, first, corrected in (
            ("pyhton web framwork", "40", {"pyhton": "python", "framwork": "framework"}),
            ("KUBERNETIS", "41", {"KUBERNETIS": "KUBERNETES"}),
            ("kubernnetes: how to deploy?", "41", {"kubernnetes": "kubernetes"}),
            ("бухгалтерри", "42", {"бухгалтерри": "бухгалтерии"}),
            ("kubernetisの使い方", "41", {"kubernetis": "kubernetes"}),
        ):
            result = retriever.search_sync(query)
            assert (result.corrected, result.hits[0].document_id) == (corrected, first)
            assert set(corrected.values()) <= set(result.hits[0].matched)
            assert result.to_json()["corrected"] == corrected
            assert result.correction.startswith(f"Searched for {next(iter(corrected.values()))} instead of ")
        right = retriever.search_sync("python web framework").hits
        assert [hit.score for hit in retriever.search_sync("pyhton web framwork").hits] == [hit.score for hit in right]
        candidates = retriever.run(retriever.candidates("kubernetis"))
        assert ranked(candidates, 0.0)[0] == ("solutions", "41")


def test_what_is_no_typing_error_is_searched_as_it_is(tmp_path: Path) -> None:
    desk = Desk(tmp_path, names=("comments", "solutions"))
    desk.fill({"comments": ROWS, "solutions": [(1, "The pyhton of the zoo", {"tenant": "zoo"})]})
    with desk.retriever() as retriever:
        for query in (
            "python framework",
            "vehicle",  # no document has it, and it is a word
            "pyhton2",
            "roum",
            "zzqqxx wwvvuu",
            "x" * 2000,
            "가나다라마바사아자차",
            "how does kubernetes deploy",
            "pyhton",  # one of the indexes has it
        ):
            result = retriever.search_sync(query)
            assert (result.corrected, "corrected" in result.to_json()) == ({}, False)
        asked = {"query": "pyhton", "indexes": ["comments"]}
        assert retriever.search_sync(**asked).corrected == {"pyhton": "python"}
        assert retriever.search_sync(**asked, dense_weight=1.0).corrected == {}, "words are not searched for"
        assert retriever.search_sync(**asked, filter={"tenant": "acme"}).corrected == {"pyhton": "python"}


def test_nobody_learns_of_words_that_only_hidden_documents_have(blank: Desk) -> None:
    """Neither from a correction to such a word, nor from one that is missing, nor from which of two it is."""
    staff, all_ = {"_rag": access_part(["staff"])}, {"_rag": access_part(["staff", "guests"])}
    rows = [
        *((n, f"The commuter of room {n} hates merlinwood, sauerkraut", staff) for n in range(30)),
        (31, "The kubernetis is a secret project", staff),
        (40, "Kubernetes for guests", all_),
        (41, "The computer of a guest", all_),
        (42, "Another computer", all_),
        (43, "A commuter", all_),
        (44, f"{'Cabbage is a vegetable. ' * 4}Sauerkraut", all_),
    ]
    blank.more = {"comments": 'access = "acl"'}
    blank.write()
    blank.fill({"comments": rows})
    with blank.retriever() as retriever:
        for query, for_guests, for_staff in (
            ("merlinwod", {}, {"merlinwod": "merlinwood"}),
            ("kubernetis", {"kubernetis": "kubernetes"}, {}),
            ("comuter", {"comuter": "computer"}, {"comuter": "commuter"}),
            ("sauerkrautt", {"sauerkrautt": "sauerkraut"}, {"sauerkrautt": "sauerkraut"}),
        ):
            asked = {"query": query, "indexes": ["comments"]}
            assert retriever.search_sync(**asked, groups=["guests"]).corrected == for_guests, query
            assert retriever.search_sync(**asked, groups=["staff"]).corrected == for_staff, query
            assert retriever.search_sync(**asked, groups=ALL_GROUPS).corrected == for_staff, query
            assert found(retriever.search_sync(**asked)) == []


def test_a_correction_weighs_counts_edits_and_the_other_words_and_quotes_insist(tmp_path: Path) -> None:
    rows = [
        *((n, f"Python in room {n}") for n in range(300)),
        *((n, f"A compass for sailors {n}") for n in range(300, 340)),
        *((n, f"Compress video files of camera {n}") for n in range(340, 350)),
        (400, "I wrote pyhton here"),
        *((n, f"A model of the railway {n}") for n in range(401, 440)),
        *((n, f"Die Maße der Tür, in Köln {n}") for n in range(440, 445)),
    ]
    with Desk(tmp_path, names=("comments",)).fill({"comments": rows}).retriever() as retriever:
        for query, corrected in (
            ("pyhton room", {"pyhton": "python"}),  # one has the same error, and 300 have the word
            ("comprss vidoe files", {"comprss": "compress", "vidoe": "video"}),
            ("comprss", {"comprss": "compress"}),  # a letter was left out
            ("compuss sailors", {"compuss": "compass"}),
            ("Gödel", {}),  # no document has "mödel", and the first letter is seldom wrong
            ("railwai", {"railwai": "railway"}),
        ):
            assert retriever.search_sync(query).corrected == corrected, query
            assert retriever.search_sync(query, exact=True).corrected == {}
        assert retriever.search_sync('"pyhton" room').corrected == {}
        assert [hit.document_id for hit in retriever.search_sync('"pyhton"').hits] == ["400"]
