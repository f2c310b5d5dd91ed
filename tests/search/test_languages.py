"""A query in a language that the embedder does not know is told so, once."""

import pytest

from rag_index.components.embedders import knows_english_alone
from rag_index.search import Retriever
from rag_index.search.soft_match import seems_foreign
from tests.etl.plain import run_plain
from tests.project import Project, run_here

PAIRS = [
    ("Der Drucker druckt nur leere Seiten", "The printer prints nothing but blank pages"),
    ("Mein Passwort ist abgelaufen", "My password has expired"),
    ("Das Postfach ist voll und nimmt keine Nachrichten an", "The mailbox is full and accepts no messages"),
    ("Der Bildschirm bleibt nach dem Start schwarz", "The screen stays black after booting"),
    ("Kein Zugriff auf das Netzlaufwerk", "No access to the network drive"),
    ("Die Tastatur verliert Buchstaben", "The keyboard loses letters"),
    ("Das Telefon klingelt nicht mehr", "The phone does not ring any more"),
    ("Die Rechnung wurde doppelt bezahlt", "The invoice was paid twice"),
    ("Der Zug hatte zwei Stunden Verspätung", "The train was two hours late"),
    ("Im Keller steht Wasser", "There is water in the basement"),
]
GERMAN, ENGLISH = ([pair[side] for pair in PAIRS] for side in (0, 1))


@pytest.mark.parametrize("query", ["Wie setze ich mein Passwort zurück", *GERMAN[:2], "принтер не печатает", "打印机"])
def test_another_language_is_noticed(query):
    assert seems_foreign(query)


@pytest.mark.parametrize(
    "query",
    [*ENGLISH, "die hard", "Erika Mustermann", "mail nils.wolff@kunde.example", "printer bin full", "ORA-01017", "in"],
)
def test_english_names_and_codes_are_in_no_other_language(query):
    assert not seems_foreign(query)


@pytest.mark.parametrize(
    ("model", "alone"),
    [("wordllama", True), ("all-minilm", True), ("bge-large-en-v1.5", True), ("e5-small", True), ("bge-m3", False),
     ("multilingual-e5-small", False), ("snowflake-arctic-embed2", False), ("nomic-embed-text-v2-moe", False)],
)  # fmt: skip
def test_what_models_know_is_told_by_their_names(model, alone):
    assert knows_english_alone(model) == alone


def project_of(folder, texts, language, embedder=""):
    project = Project(folder).fill(len(texts))
    for number, text in enumerate(texts, 1):
        project.execute("UPDATE note SET title = '', body = ? WHERE id = ?", text, number)
    config = project.config.read_text()
    project.config.write_text(f'{config}language = "{language}"\n{embedder}')
    run_plain(project)
    return project


def test_the_answer_and_the_status_say_once_what_the_embedder_knows(tmp_path):
    project = project_of(tmp_path / "german", GERMAN, "german")
    with Retriever.from_settings(project.config) as retriever:
        found = retriever.search_sync("Das Postfach ist voll")
        assert found.remark.startswith("This embedder knows English: wordllama.")
        assert found.hits[0].text.startswith("Das Postfach")
        assert retriever.search_sync("mailbox full").remark == ""
        assert retriever.search_sync("Das Postfach ist voll", dense_weight=0).remark == "", "nothing was embedded"
    assert run_here(project.config, "search", "Das Postfach ist voll")[0].count("knows English: wordllama") == 1
    status = run_here(project.config, "status")[0]
    assert status.count("this embedder knows English: wordllama; notes has german") == 1
    english = project_of(tmp_path / "english", ENGLISH, "english")
    assert "knows English" not in run_here(english.config, "status")[0]
