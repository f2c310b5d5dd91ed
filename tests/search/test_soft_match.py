"""Soft match, by which other words for the same thing count; what of a hit is shown; and foreign
languages."""

import pytest

from rag_index.components.embedders import knows_english_alone
from rag_index.components.embedders.bm25 import Bm25Encoder, Bm25Model
from rag_index.search import Retriever
from rag_index.search.highlights import marked, snippet
from rag_index.search.soft_match import near_scores, seems_foreign, soft_scores
from tests.etl.plain import run_plain
from tests.project import SETTINGS, Project, run_here
from tests.search.desk import Desk, found

ROWS = [
    *((n, f"The printer of room {n} prints blank pages") for n in range(40)),
    *((n, f"The scanner of floor {n} makes noise") for n in range(40, 44)),
    (50, "An automobile stood before the door"),
    (51, "An umbrella stood before the door"),
]
PARTS = """
project = "test"
[source]
url = "sqlite:///source.db"
[[indexes]]
name = "notes"
table = "note"
key = "id"
title = "title"
text = ["body"]
[[indexes.parts]]
table = "remark"
on = "note_id"
key = "id"
text = ["said"]
"""
PAIRS = [
    ("Der Drucker druckt nur leere Seiten", "The printer prints nothing but blank pages"),
    ("Mein Passwort ist abgelaufen", "My password has expired"),
    (
        "Das Postfach ist voll und nimmt keine Nachrichten an",
        "The mailbox is full and accepts no messages",
    ),
    ("Der Bildschirm bleibt nach dem Start schwarz", "The screen stays black after booting"),
    ("Kein Zugriff auf das Netzlaufwerk", "No access to the network drive"),
    ("Die Tastatur verliert Buchstaben", "The keyboard loses letters"),
    ("Das Telefon klingelt nicht mehr", "The phone does not ring any more"),
    ("Die Rechnung wurde doppelt bezahlt", "The invoice was paid twice"),
    ("Der Zug hatte zwei Stunden Verspätung", "The train was two hours late"),
    ("Im Keller steht Wasser", "There is water in the basement"),
]
GERMAN, ENGLISH = ([pair[side] for pair in PAIRS] for side in (0, 1))


def test_a_rare_word_counts_more_and_a_long_text_less():
    rare, frequent = soft_scores({"printer": 5.0, "broken": 1.0}, ["printer", "broken"])
    assert rare > frequent
    short, long = soft_scores({"printer": 1.0}, ["printer", "printer " + "of the old kind " * 100])
    assert short > long > 0
    once, repeated = soft_scores({"printer": 1.0}, ["printer", "printer " * 75])
    assert once > repeated == pytest.approx(1.0, abs=1e-3)
    assert soft_scores({}, ["printer"]) == [0.0]
    assert soft_scores({"printer": 1.0}, []) == []


def test_a_word_that_the_embedder_does_not_know_is_found_by_its_letters():
    """Its tokens are pieces that stand in many words: T-ier-qu-äl-er-ei."""
    for word, like, pieces in [
        (
            "Tierquälerei",
            "wer ein Wirbeltier quält oder zur Tierquälung anstiftet",
            "Tisch, Bier, quer, schäl er ei",
        ),
        ("oslepeo", "kralja je otac oslepio", "oslo je lepo i lepi eo"),
        ("全文", "支持全文搜索", "安全的作文"),
    ]:
        right, wrong = soft_scores({word: 1.0}, [like, pieces])
        assert right > 1.5 * wrong, word
    assert soft_scores({"の": 1.0, "oslepeo": 1.0}, ["の", "...", "oslepeo"])[2] > 0.5


def test_words_that_stand_together_in_the_query_count_more_where_they_do_so_too(tmp_path):
    rows = [
        (1, "A red printer stood for many years in the corner beside the old wide wooden door"),
        (2, "A red door stood for many years in the corner beside the old wide wooden printer"),
    ]
    with Desk(tmp_path, names=("comments",)).fill({"comments": rows}).retriever() as retriever:
        soft = {hit.document_id: hit.soft for hit in retriever.search_sync("red printer").hits}
    assert soft["1"] > soft["2"]


def test_several_indexes_rank_as_one_and_other_words_find(blank):
    """The scanners are rare in all and frequent in their own index: each index's own idf would
    order otherwise."""
    halves = {"comments": ROWS[:40], "titles": ROWS[40:]}
    blank.fill({"solutions": ROWS, **halves})
    with blank.retriever() as retriever:
        for query in (
            "a noisy scanner of room 7",
            "printer with blank pages on floor 41",
            "a vehicle",
            "zzqq",
        ):
            one = retriever.search_sync(query, indexes=["solutions"], limit=10)
            two = retriever.search_sync(query, indexes=list(halves), limit=10)
            assert two.fusion == "score"
            for name in ("score", "cosine", "bm25", "soft"):
                both = [[getattr(hit, name) for hit in result.hits] for result in (one, two)]
                assert both[1] == pytest.approx(both[0], abs=1e-3)
        assert found(retriever.search_sync("a car before the gate", indexes=["titles"]))[0] == (
            "titles",
            "50",
        )


def test_words_of_the_title_count_in_each_chunk_and_more_than_those_of_the_text(tmp_path):
    project = Project(tmp_path / "project").fill(4)
    settings = SETTINGS.format(extra="").replace(
        'text = ["title", "body"]', 'title = "title"\ntext = "body"'
    )
    project.write_settings(settings)
    titles = ["The car of Ann", "The garden of Ann", "", "The garden of Eve"]
    texts = ["It stood there. ", "A car stood there. ", "A car stood there. ", "It stood there. "]
    for number, (title, text) in enumerate(zip(titles, texts, strict=True), 1):
        project.execute(
            "UPDATE note SET title = ?, body = ? WHERE id = ?", title, text * 200, number
        )
    assert run_plain(project).state == "completed"
    with Retriever.from_settings(project.settings) as retriever:
        soft = {hit.document_id: hit.soft for hit in retriever.search_sync("automobile").hits}
        assert soft["1"] > soft["2"] > soft["4"]
        assert soft["3"] > soft["2"], "a text without a title has none that says nothing"
        assert found(retriever.search_sync("automobile"))[0][1] in "13"


def test_words_are_marked_as_they_stand_in_the_text_and_parts_of_names_in_source_code():
    for query, text, shown in (
        ("printer offline", "Printers go offline.", "[Printers] go [offline]."),
        ("mbp ham805", "The MBP-HAM805, see ham80", "The [MBP-HAM805], see ham80"),
        ("MBP-HAM805", "mbp ham805 of MBP-HAM805", "[mbp] [ham805] of [MBP-HAM805]"),
        (
            "anna@shop.example",
            "Sent by Anna@shop.example today",
            "Sent by [Anna]@[shop.example] today",
        ),
        (
            "g++ error",
            "We compile with g++, errors and all",
            "We compile with [g++], [errors] and all",
        ),
        ("café", "The CAFE and the cafés", "The [CAFE] and the [cafés]"),
        ("café", "The cafe\u0301 and a cafe", "The [cafe\u0301] and a [cafe]"),
        ("STRASSE", "Stra\u00dfe, Hauptstra\u00dfe", "[Stra\u00dfe], Hauptstra\u00dfe"),
        ("f\u00fcr", "daf\u00fcr und f\u00fcr", "daf\u00fcr und [f\u00fcr]"),
        ("lodz", "\u0141\u00f3d\u017a", "[\u0141\u00f3d\u017a]"),
        (
            "\u05e9\u05dc\u05d5",
            "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9",
            "[\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9]",
        ),
        ("故障", "打印机出现故障了", "打印机出现[故障]了"),
        ("of the", "of the printer", "of the printer"),
    ):
        encoder = Bm25Encoder(Bm25Model("english"))
        assert marked(text, encoder.highlights(encoder.words(query), text), "[", "]") == shown
    encoder, text = (
        Bm25Encoder(Bm25Model("english", identifiers=True)),
        "def read_tree(path): return JsonTreeReader",
    )
    assert encoder.highlights(encoder.words("tree"), text) == ("read_tree", "JsonTreeReader")


def test_neighbours_are_found_in_every_form_and_script():
    encoder = Bm25Encoder(Bm25Model("none"))
    for query, text in (
        ("еще раз", "Ещё раз"),
        ("दिल्ली बात", "दिल्\u200dली बात"),
        ("프린터", "새 프린터가"),
        ("พิมพ์", "เครื่องพิมพ์เสีย"),
        ("👍 ok", "👍🏽 ok"),
    ):
        words = [word.dimensions for word in encoder.words(query).values()]
        assert near_scores(encoder, words, [1.0] * len(words), [text, "else"]) == [1.0, 0.0], query


def test_a_long_text_is_cut_where_most_words_stand():
    text = (
        f"{'nothing here ' * 60}the printer is offline again, said the printer's owner"
        f" {'or there ' * 60}"
    )
    cut = snippet(text, ["printer", "offline"], 80)
    assert cut.startswith("… ")
    assert cut.endswith(" …")
    assert "printer is offline" in cut
    assert len(cut) <= 84
    assert snippet("short", ["printer"], 80) == "short"
    assert snippet("x" * 500, [], 80) == f"{'x' * 56} …"


@pytest.mark.long
def test_the_shown_chunk_has_words_of_the_query_and_not_only_its_title(project):
    project.write_settings(
        PARTS + PARTS[PARTS.index("[[indexes]]") :].replace('"notes"', '"again"')
    )
    project.execute("CREATE TABLE remark (id INTEGER PRIMARY KEY, note_id INTEGER, said TEXT)")
    with project.source() as db:
        db.execute(
            "INSERT INTO note (id, title, body) VALUES (1, 'Printer prints blank pages', 'It began"
            " on Monday.')"
        )
        said = [
            "Ok.",
            "Thank you!",
            f"It is about the drum of the printer. {'Nobody knows why. ' * 8}",
        ]
        db.executemany("INSERT INTO remark (note_id, said) VALUES (1, ?)", [(one,) for one in said])
    run_here(project.config, "index-all")
    with Retriever.from_settings(project.settings) as retriever:
        for query, shown in (
            ("printer prints blank", "drum of the"),
            ("blank pages printed", "It began on Monday."),
        ):
            hits = retriever.search_sync(query).hits
            assert {hit.index for hit in hits} == {
                "notes",
                "again",
            }, "two indexes of one table, with equal keys"
            for hit in hits:
                assert shown in hit.text, query
                assert {"prints"} <= {*hit.highlights}


def test_another_language_is_noticed_and_english_names_and_codes_are_in_none():
    for query in (
        "Wie setze ich mein Passwort zurück",
        *GERMAN[:2],
        "принтер не печатает",
        "打印机",
    ):
        assert seems_foreign(query)
    for query in (
        *ENGLISH,
        "die hard",
        "Erika Mustermann",
        "mail nils.wolff@kunde.example",
        "printer bin full",
        "in",
    ):
        assert not seems_foreign(query)
    assert not seems_foreign("ORA-01017")


def test_what_models_know_is_told_by_their_names():
    for model in (
        "wordllama",
        "all-minilm",
        "bge-large-en-v1.5",
        "e5-small",
        "BAAI/bge-small-en-v1.5",
    ):
        assert knows_english_alone(model)
    for model in (
        "bge-m3",
        "multilingual-e5-small",
        "snowflake-arctic-embed2",
        "nomic-embed-text-v2-moe",
        "BAAI/bge-m3",
    ):
        assert not knows_english_alone(model)


def project_of(folder, texts, language, embedder=""):
    project = Project(folder).fill(len(texts))
    for number, text in enumerate(texts, 1):
        project.execute("UPDATE note SET title = '', body = ? WHERE id = ?", text, number)
    project.config.write_text(f'{project.config.read_text()}language = "{language}"\n{embedder}')
    run_plain(project)
    return project


def test_the_answer_and_the_status_say_once_what_the_embedder_knows(tmp_path):
    project = project_of(tmp_path / "german", GERMAN, "german")
    with Retriever.from_settings(project.config) as retriever:
        found = retriever.search_sync("Das Postfach ist voll")
        assert found.remark.startswith("This embedder knows English: wordllama.")
        assert found.hits[0].text.startswith("Das Postfach")
        assert retriever.search_sync("mailbox full").remark == ""
        assert retriever.search_sync("Das Postfach ist voll", dense_weight=0).remark == "", (
            "nothing was embedded"
        )
    assert (
        run_here(project.config, "search", "Das Postfach ist voll")[0].count(
            "knows English: wordllama"
        )
        == 1
    )
    status = run_here(project.config, "status")[0]
    assert status.count("this embedder knows English: wordllama; notes has german") == 1
    english = project_of(tmp_path / "english", ENGLISH, "english")
    assert "knows English" not in run_here(english.config, "status")[0]
