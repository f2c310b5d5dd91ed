"""Other words than were typed: corrections of typing errors, and the house's own words for the
same."""

import sqlite3

import pytest

from rag_index.core.documents.groups import access_part
from rag_index.errors import SettingsError
from rag_index.search import ALL_GROUPS
from rag_index.search.fusion import ranked
from rag_index.search.json_answers import ExplainedHit, HitAnswer
from rag_index.search.synonyms import parse
from tests.search.desk import Desk, found

ROWS = [
    *((n, f"The printer of room {n} prints blank pages") for n in range(30)),
    (40, "A framework for web pages in Python"),
    (41, "Deploying to the Kubernetes cluster"),
    (42, "Настройка принтера в бухгалтерии"),
]
MEANING = [
    (1, "The MacBook Pro of Anna does not charge"),
    (2, "My MBP has a flat battery"),
    (3, "Pro users of the portal get a badge"),
    (4, "The virtual private networks of the office are slow"),
    (5, "A VPN client that crashes"),
    (6, "Private notes are shown to all"),
    (7, "Laptops are handed out on Monday"),
    (8, "A notebook fell down"),
    (9, "The help desk is closed"),
    (10, "Information technology is moving to floor two"),
    (11, "The kitchen has no coffee"),
    (12, "会议室的虚拟专用网连不上"),
]
WORDS = """\
# what we call things
MBP, MacBook Pro
VPN => virtual private network, 虚拟专用网

notebook, laptop
IT, information technology
"""


def test_a_typing_error_finds_what_it_means_and_the_answer_says_so(blank):
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
            assert result.correction.startswith(
                f"Searched for {next(iter(corrected.values()))} instead of "
            )
        right = retriever.search_sync("python web framework").hits
        assert [hit.score for hit in retriever.search_sync("pyhton web framwork").hits] == [
            hit.score for hit in right
        ]
        assert ranked(retriever.run(retriever.candidates("kubernetis")), 0.0)[0] == (
            "solutions",
            "41",
        )


def test_what_is_no_typing_error_is_searched_as_it_is(tmp_path):
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
        assert retriever.search_sync(**asked, dense_weight=1.0).corrected == {}, (
            "words are not searched for"
        )
        assert retriever.search_sync(**asked, filter={"tenant": "acme"}).corrected == {
            "pyhton": "python"
        }


def test_nobody_learns_of_words_that_only_hidden_documents_have(blank):
    """Neither from a correction to such a word, nor from one that is missing, nor from which of two
    it is."""
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


def test_a_correction_weighs_counts_edits_and_the_other_words_and_quotes_insist(tmp_path):
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


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("desk")
    (folder / "words.txt").write_text(WORDS, encoding="utf-8")
    extra = '[retrieve]\nsynonyms = "words.txt"\ntimeout = 60'
    return Desk(folder, extra=extra, names=("comments",)).fill({"comments": MEANING})


@pytest.fixture(scope="module")
def search(desk):
    with desk.retriever() as retriever:
        yield retriever.search_sync


def ids(result) -> list[str]:
    return [document_id for _, document_id in found(result)]


def test_what_means_the_same_is_found_after_what_was_typed(search):
    for query, first, said in (
        ("MBP", ["2", "1"], "Also searched for MacBook Pro (MBP)"),
        ("macbook pro", ["1", "2"], "Also searched for MBP (macbook pro)"),
        ("MBPs", ["1", "2"], "Also searched for MBP and MacBook Pro (MBPs)"),
        ("notebooks", ["8", "7"], "Also searched for laptop (notebooks)"),
        ("which laptop fell down", ["8", "7"], "Also searched for notebook (laptop)"),
        ("VPN", ["5", "12", "4"], "Also searched for virtual private network and 虚拟专用网 (VPN)"),
        ("IT", ["10"], "Also searched for information technology (IT)"),
        (
            "我的VPN连不上",
            ["12", "5"],
            "Also searched for virtual private network and 虚拟专用网 (VPN)",
        ),
    ):
        result = search(query)
        assert result.correction == said
        assert not result.verdict
        assert set(ids(result)[: len(first)]) == set(first)
        if query != "MBPs":  # which nothing has
            assert ids(result)[0] == first[0]


def test_a_hit_says_by_which_words_it_was_found_and_none_are_added_against_an_arrow_or_where_both_stand(
    search,
):
    first, second, *others = search("MBP does not charge").hits
    assert (first.document_id, first.matched, first.synonyms) == (
        "1",
        ("MBP", "charge"),
        ("MacBook Pro",),
    )
    assert first.highlights == ("MacBook", "Pro", "charge")
    assert ExplainedHit.model_validate(first).to_json()["synonyms"] == ["MacBook Pro"]
    assert "synonyms" not in HitAnswer.model_validate(first).to_json()
    assert (second.document_id, second.synonyms) == ("2", ())
    assert not any(hit.synonyms for hit in others)
    for query in (
        "MBP or MacBook Pro",
        "virtual private network",
        "is it closed",
        "private",
        "pro users",
        "networks",
    ):
        assert not search(query).synonyms, query


def test_a_word_of_the_list_is_no_typing_error(tmp_path):
    (tmp_path / "words.txt").write_text("prinxer, MacBook Pro\n")
    desk = Desk(
        tmp_path, extra='[retrieve]\nsynonyms = "words.txt"\ntimeout = 60', names=("comments",)
    )
    desk.fill({"comments": [*MEANING, (20, "The printer is out of paper")]})
    with desk.retriever() as retriever:
        assert ids(retriever.search_sync("prinxer"))[0] == "1"


def test_a_change_of_the_file_counts_in_the_next_search(desk, tmp_path):
    file = tmp_path / "words.txt"
    desk.write(extra=f'[retrieve]\nsynonyms = "{file}"\ntimeout = 60')
    file.write_text("boss, Anna\n")
    with desk.retriever() as retriever:
        assert ids(retriever.search_sync("the boss"))[0] == "1"
        file.write_text("boss, coffee\n")
        assert ids(retriever.search_sync("the boss"))[0] == "11"
        for broken in ("boss =>\n", None):
            file.write_text(broken) if broken else file.unlink()
            result = retriever.search_sync("the boss")
            assert (
                result.missing
                == "The synonyms of the settings could not be read, and the log says why."
            )
            assert ids(result)[0] == "11", "those that were known are kept"
        file.write_text("boss, VPN\n")
        result = retriever.search_sync("the boss")
        assert (ids(result)[0], result.missing) == ("5", "")


def test_a_select_gives_them(desk):
    with sqlite3.connect(desk.folder / "source.db") as source:
        source.execute("CREATE TABLE abbreviation (short, long)")
        pairs = [("MBP", "MacBook Pro"), ("VPN", "=> virtual private network"), ("empty", None)]
        source.executemany("INSERT INTO abbreviation VALUES (?, ?)", pairs)
    query = "SELECT short, long FROM abbreviation WHERE short <> ':x'"
    for columns, wanted in (("short, long", ["2", "1"]), ("short", None)):
        text = query.replace("short, long", columns)
        desk.write(extra=f'[retrieve]\nsynonyms = "{text}"\ntimeout = 60')
        with desk.retriever() as retriever:
            result = retriever.search_sync("MBP")
            assert (ids(result)[:2] if wanted else None) == wanted
            assert bool(result.missing) == (wanted is None)
            assert ("MBP" in result.synonyms) == bool(wanted)
            assert not retriever.search_sync("virtual private network").synonyms


def test_what_stands_before_an_arrow_means_the_same_as_nothing_beside_it_and_a_line_without_two_phrases_is_named():
    pairs = [("MBP", "MacBook"), ("MBA", "MacBook"), ("VPN", "tunnel"), ("tunnel", "VPN")]
    assert parse(["MBP, MBA => MacBook", "VPN, tunnel"]) == pairs
    for line in ("MBP", "MBP =>", "=> MBP", ","):
        with pytest.raises(SettingsError, match="line 2 is"):
            parse(["a, b", line])
