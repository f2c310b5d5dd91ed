"""Soft match: other words for the same thing count, and several indexes are one to the words of a query."""

from pathlib import Path

import pytest

from rag_index.search import Retriever
from rag_index.search.soft_match import soft_scores
from tests.etl.plain import run_plain
from tests.project import SETTINGS, Project
from tests.search.desk import Desk, found

ROWS = [
    *((n, f"The printer of room {n} prints blank pages") for n in range(40)),
    *((n, f"The scanner of floor {n} makes noise") for n in range(40, 44)),
    (50, "An automobile stood before the door"),
    (51, "An umbrella stood before the door"),
]


def test_a_rare_word_counts_more_and_a_long_text_less() -> None:
    rare, frequent = soft_scores({"printer": 5.0, "broken": 1.0}, ["printer", "broken"])
    assert rare > frequent
    short, long = soft_scores({"printer": 1.0}, ["printer", "printer " + "of the old kind " * 100])
    assert short > long > 0
    once, repeated = soft_scores({"printer": 1.0}, ["printer", "printer " * 75])
    assert once > repeated == pytest.approx(1.0, abs=1e-3)
    assert soft_scores({}, ["printer"]) == [0.0]
    assert soft_scores({"printer": 1.0}, []) == []


def test_a_word_that_the_embedder_does_not_know_is_found_by_its_letters() -> None:
    """Its tokens are pieces that stand in many words: T-ier-qu-äl-er-ei."""
    for word, like, pieces in [
        (
            "Tierquälerei",
            "wer ein Wirbeltier quält oder zur Tierquälung anstiftet",
            "ein Tisch, ein Bier, quer, schäl er ei",
        ),
        ("oslepeo", "kralja je otac oslepio", "oslo je lepo i lepi eo"),
        ("全文", "支持全文搜索", "安全的作文"),
    ]:
        right, wrong = soft_scores({word: 1.0}, [like, pieces])
        assert right > 1.5 * wrong, word
    assert soft_scores({"の": 1.0, "oslepeo": 1.0}, ["の", "...", "oslepeo"])[2] > 0.5


def test_words_that_stand_together_in_the_query_count_more_where_they_do_so_too(tmp_path: Path) -> None:
    rows = [
        (1, "A red printer stood for many years in the corner beside the old wide wooden door"),
        (2, "A red door stood for many years in the corner beside the old wide wooden printer"),
    ]
    with Desk(tmp_path, names=("comments",)).fill({"comments": rows}).retriever() as retriever:
        soft = {hit.document_id: hit.soft for hit in retriever.search_sync("red printer").hits}
    assert soft["1"] > soft["2"]


def test_several_indexes_rank_as_one_and_other_words_find(blank: Desk) -> None:
    """The scanners are rare in all and frequent in their own index: each index's own idf would order otherwise."""
    halves = {"comments": ROWS[:40], "titles": ROWS[40:]}
    blank.fill({"solutions": ROWS, **halves})
    with blank.retriever() as retriever:
        for query in ("a noisy scanner of room 7", "printer with blank pages on floor 41", "a vehicle", "zzqq"):
            one = retriever.search_sync(query, indexes=["solutions"], limit=10)
            two = retriever.search_sync(query, indexes=list(halves), limit=10)
            assert two.fusion == "score"
            for name in ("score", "cosine", "bm25", "soft"):
                assert [getattr(hit, name) for hit in two.hits] == pytest.approx(
                    [getattr(hit, name) for hit in one.hits], abs=1e-3
                )
        assert found(retriever.search_sync("a car before the gate", indexes=["titles"]))[0] == ("titles", "50")


def test_words_of_the_title_count_in_each_chunk_and_more_than_those_of_the_text(tmp_path: Path) -> None:
    project = Project(tmp_path / "project").fill(4)
    settings = SETTINGS.format(extra="").replace('text = ["title", "body"]', 'title = "title"\ntext = "body"')
    project.write_settings(settings)
    titles = ["The car of Ann", "The garden of Ann", "", "The garden of Eve"]
    texts = ["It stood there. ", "A car stood there. ", "A car stood there. ", "It stood there. "]
    for number, (title, text) in enumerate(zip(titles, texts, strict=True), 1):
        project.execute("UPDATE note SET title = ?, body = ? WHERE id = ?", title, text * 200, number)
    assert run_plain(project).state == "completed"
    with Retriever.from_settings(project.settings) as retriever:
        soft = {hit.document_id: hit.soft for hit in retriever.search_sync("automobile").hits}
        assert soft["1"] > soft["2"] > soft["4"]
        assert soft["3"] > soft["2"], "a text without a title has none that says nothing"
        assert found(retriever.search_sync("automobile"))[0][1] in "13"
