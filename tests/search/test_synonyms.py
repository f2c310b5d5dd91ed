"""The house's own words: what means the same is found too, after what was typed, and the answer says so."""

import sqlite3

import pytest

from rag_index.errors import SettingsError
from rag_index.search.synonyms import parse
from tests.search.desk import Desk, found

ROWS = [
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


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Desk:
    folder = tmp_path_factory.mktemp("desk")
    (folder / "words.txt").write_text(WORDS, encoding="utf-8")
    extra = '[retrieve]\nsynonyms = "words.txt"\ntimeout = 60'
    return Desk(folder, extra=extra, names=("comments",)).fill({"comments": ROWS})


@pytest.fixture(scope="module")
def search(desk):
    with desk.retriever() as retriever:
        yield retriever.search_sync


def ids(result) -> list[str]:
    return [document_id for _, document_id in found(result)]


@pytest.mark.parametrize(
    ("query", "first", "said"),
    [
        ("MBP", ["2", "1"], "Also searched for MacBook Pro (MBP)"),
        ("macbook pro", ["1", "2"], "Also searched for MBP (macbook pro)"),
        ("MBPs", ["1", "2"], "Also searched for MBP and MacBook Pro (MBPs)"),
        ("notebooks", ["8", "7"], "Also searched for laptop (notebooks)"),
        ("which laptop fell down", ["8", "7"], "Also searched for notebook (laptop)"),
        ("VPN", ["5", "12", "4"], "Also searched for virtual private network and 虚拟专用网 (VPN)"),
        ("IT", ["10"], "Also searched for information technology (IT)"),
        ("我的VPN连不上", ["12", "5"], "Also searched for virtual private network and 虚拟专用网 (VPN)"),
    ],
)
def test_what_means_the_same_is_found_after_what_was_typed(search, query, first, said):
    result = search(query)
    assert result.correction == said
    assert not result.verdict
    assert set(ids(result)[: len(first)]) == set(first)
    if query != "MBPs":  # which nothing has
        assert ids(result)[0] == first[0]


def test_a_hit_says_by_which_words_it_was_found(search):
    first, second, *others = search("MBP does not charge").hits
    assert (first.document_id, first.matched, first.synonyms) == ("1", ("MBP", "charge"), ("MacBook Pro",))
    assert first.highlights == ("MacBook", "Pro", "charge")
    assert first.to_json(explain=True)["synonyms"] == ["MacBook Pro"]
    assert "synonyms" not in first.to_json()
    assert (second.document_id, second.synonyms) == ("2", ())
    assert not any(hit.synonyms for hit in others)


@pytest.mark.parametrize(
    "query", ["MBP or MacBook Pro", "virtual private network", "is it closed", "private", "pro users", "networks"]
)
def test_nothing_is_added_against_an_arrow_for_a_part_of_a_phrase_or_where_both_stand(search, query):
    assert not search(query).synonyms


def test_a_word_of_the_list_is_no_typing_error(tmp_path):
    (tmp_path / "words.txt").write_text("prinxer, MacBook Pro\n")
    desk = Desk(tmp_path, extra='[retrieve]\nsynonyms = "words.txt"\ntimeout = 60', names=("comments",))
    desk.fill({"comments": [*ROWS, (20, "The printer is out of paper")]})
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
            assert result.missing == "The synonyms of the settings could not be read, and the log says why."
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


def test_what_stands_before_an_arrow_means_the_same_as_nothing_beside_it():
    assert parse(["MBP, MBA => MacBook", "VPN, tunnel"]) == [
        ("MBP", "MacBook"), ("MBA", "MacBook"), ("VPN", "tunnel"), ("tunnel", "VPN"),
    ]  # fmt: skip


@pytest.mark.parametrize("line", ["MBP", "MBP =>", "=> MBP", ","])
def test_a_line_without_two_phrases_is_named(line):
    with pytest.raises(SettingsError, match="line 2 is"):
        parse(["a, b", line])
