"""Documents of several tables, from the source to the hit: what is embedded, what is found, what a
change costs."""

import re
from contextlib import closing

import pytest

from rag_index.care.plan import plan_runs
from rag_index.components.embedders.local import LocalEmbedder
from rag_index.components.sources import open_source
from rag_index.errors import SourceError
from rag_index.etl.changed import index_documents
from rag_index.etl.deletes import DeleteGuard, count_parts
from rag_index.search import Retriever
from rag_index.search.access import ALL_GROUPS
from rag_index.search.json_answers import HitAnswer
from tests.etl.plain import Died, Nights, run_plain
from tests.project import Project

SETTINGS = """\
project = "test"
[source]
url = "sqlite:///source.db"
[retrieve]
timeout = 60
[[indexes]]
name = "notes"
table = "ticket"
key = "id"
title = "subject"
link = "https://desk.example.org/t/{id}"
text = "body"
where = "hidden = 0"
payload = ["customer.name"]
payload_indexes = {"customer.name" = "keyword", "remark.author" = "keyword"}
chunk_chars = 200
chunk_overlap = 20
access = "team"

[indexes.joins.customer]
table = "customer"
on = "customer_id"

[[indexes.parts]]
table = "remark"
on = "ticket_id"
key = "id"
order_by = "id"
text = "body"
payload = ["author"]
link = "/r/{id}"
"""
TABLES = """
CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE ticket (id INTEGER PRIMARY KEY, subject TEXT, body TEXT, customer_id INTEGER, hidden INTEGER, team TEXT);
CREATE TABLE remark (id INTEGER PRIMARY KEY, ticket_id INTEGER, author TEXT, body TEXT);
INSERT INTO customer VALUES (1, 'Acme'), (2, 'Bolt');
INSERT INTO ticket VALUES (1, 'Printer offline', 'It prints only red pages.', 1, 0, 'desk'),
    (2, 'Screen flickers', 'The display is dark.', 2, 0, 'desk'), (3, 'Salaries', 'Secret.', 1, 1, 'desk');
INSERT INTO remark VALUES (10, 1, 'kim', 'Replace the toner cartridge.'),
    (11, 1, 'lee', 'The network cable was loose.'), (12, 2, 'kim', 'A new graphics driver helps.')
"""
LANGUAGES = """\
project = "test"
[source]
url = "sqlite:///source.db"

[[indexes]]
name = "notes"
table = "translation"
key = "id"
title = "name"
text = "details"
language = ["english", "german"]
"""
TRANSLATIONS = """
CREATE TABLE translation (id INTEGER PRIMARY KEY, locale TEXT, name TEXT, details TEXT);
INSERT INTO translation VALUES (1, 'de_AT', 'Sensoren Light', NULL), (2, 'en', 'Light bulbs', NULL),
    (3, 'fr', 'Sensoren Light', NULL), (4, NULL, 'Sensoren Light', NULL)
"""
GERMAN = [  # as databases have it
    "de",
    "DE",
    "De",
    "de ",
    " de",
    "DE_de",
    "de-AT",
    "de_DE.UTF-8",
    "de_DE@euro",
    "de-Latn-DE",
    "deu",
    "ger",
    "GER  ",
    "german",
    "German (Austria)",
    "German_Germany.1252",
    "Deutsch",
    "DEUTSCH",
    "Allemand",
    "alem\u00e1n",
    "de,en;q=0.9",
    "Swiss German",
]


def make_project(folder, settings=SETTINGS, tables=TABLES) -> Project:
    """Return a project with these settings and tables, which a run has indexed."""
    project = Project(folder)
    project.write_settings(settings)
    with project.source() as db:
        db.executescript(tables)
    assert run_plain(project).state == "completed"
    return project


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path / "project")


@pytest.fixture
def sent(project, monkeypatch):
    """The texts that are embedded from now on."""
    texts = []
    embed = LocalEmbedder.embed_documents
    monkeypatch.setattr(
        LocalEmbedder,
        "embed_documents",
        lambda self, given: texts.extend(given) or embed(self, given),
    )
    return texts


def search(project, query, **given):
    with Retriever(project.settings) as retriever:
        return retriever.search_sync(query, **{"groups": ALL_GROUPS, **given}).hits


def shape(hit):
    return (hit.document_id, hit.title, hit.link, dict(hit.part), hit.text)


def test_a_hit_has_title_link_and_the_part_that_was_found(project):
    [first, *_] = search(project, "printer toner cartridge")
    part = {"name": "remark", "id": "10", "link": "/r/10"}
    link = "https://desk.example.org/t/1"
    assert shape(first) == ("1", "Printer offline", link, part, "Replace the toner cartridge.")
    assert first.payload == {"customer": {"name": "Acme"}, "remark": {"author": "kim"}}
    assert {"printer", "toner"} <= set(first.matched)  # title and answer stand in one chunk
    [first, *_] = search(project, "only red pages")
    assert shape(first) == ("1", "Printer offline", link, {}, "It prints only red pages.")
    assert HitAnswer.model_validate(first).to_json() | {
        "score": 0,
        "relevance": 1,
        "citation": "",
    } == {
        "index": "notes",
        "document_id": "1",
        "citation": "",
        "score": 0,
        "relevance": 1,
        "chunk": 0,
        "total_chunks": 3,
        "text": "It prints only red pages.",
        "payload": {"customer": {"name": "Acme"}},
        "title": "Printer offline",
        "link": link,
        "highlights": ["red", "pages"],
    }
    assert {hit.document_id for hit in search(project, "salaries secret")} <= {"1", "2"}


def test_hits_are_collapsed_and_filtered_by_fields_of_joins_and_parts(project):
    assert {
        hit.document_id for hit in search(project, "help", filter={"customer.name": "Bolt"})
    } == {"2"}
    assert {
        hit.document_id for hit in search(project, "help", filter={"remark.author": "lee"})
    } == {"1"}
    project.execute(
        "INSERT INTO ticket VALUES (4, 'Printer slow', 'One page an hour.', 1, 0, 'desk')"
    )
    assert run_plain(project).state == "completed"
    hits = search(project, "printer page", collapse="customer.name")
    assert sorted((hit.payload["customer"]["name"], hit.collapsed) for hit in hits) == [
        ("Acme", 1),
        ("Bolt", 0),
    ]


@pytest.mark.parametrize(
    ("change", "embedded"),
    [
        ("UPDATE remark SET body = 'Use another cartridge.' WHERE id = 10", 1),
        ("UPDATE remark SET author = 'ann' WHERE id = 10", 0),
        ("INSERT INTO remark VALUES (13, 1, 'kim', 'Solved.')", 1),
        ("DELETE FROM remark WHERE id = 10", 0),
        ("UPDATE ticket SET subject = 'Plotter offline' WHERE id = 1", 3),
        ("UPDATE customer SET name = 'Acme Ltd' WHERE id = 1", 0),
    ],
)
def test_a_change_embeds_the_chunks_that_it_changes(project, sent, change, embedded):
    project.execute(change)
    outcome = run_plain(project)
    assert (outcome.state, outcome.changed + outcome.payload_only, len(sent)) == (
        "completed",
        1,
        embedded,
    )
    after = project.points()
    assert run_plain(project).unchanged == 2
    fresh = Project(project.folder / "fresh")
    fresh.write_settings(SETTINGS.replace("sqlite:///source.db", "sqlite:///../source.db"))
    assert run_plain(fresh).state == "completed"
    again = fresh.points()
    assert {key: again[key][0] for key in again} == {key: after[key][0] for key in after}


def test_what_where_says_is_deleted_and_comes_back(project):
    project.execute("UPDATE ticket SET hidden = 1 - hidden WHERE id IN (1, 3)")
    outcome = run_plain(project)
    assert (outcome.state, outcome.deleted, outcome.new) == ("completed", 1, 1)
    assert project.texts().keys() == {"2", "3"}
    project.execute("UPDATE ticket SET hidden = 1 WHERE id = 2")
    assert index_documents(project.settings, "notes", ["2"]).deleted == 1
    project.execute("UPDATE ticket SET hidden = 0 WHERE id = 2")
    assert index_documents(project.settings, "notes", ["2"]).new == 1
    assert project.texts()["2"] == ["The display is dark.", "A new graphics driver helps."]


def test_rights_change_without_embedding_and_keep_title_and_link(project, sent):
    project.execute("UPDATE ticket SET team = 'sales' WHERE id = 1")
    assert (run_plain(project).state, sent) == ("completed", [])
    shown = [
        (hit.document_id, hit.title, hit.link)
        for hit in search(project, "printer", groups=["sales"])
    ]
    assert shown == [("1", "Printer offline", "https://desk.example.org/t/1")]


def fill(project: Project) -> None:
    """Add 150 tickets with three remarks each to those of the project, which have three."""
    numbers = "WITH RECURSIVE s(n) AS (SELECT {} UNION ALL SELECT n + 1 FROM s WHERE n < {})"
    tickets, remarks = numbers.format(100, 249), numbers.format(300, 749)
    project.execute(
        f"INSERT INTO ticket {tickets} SELECT n, 'Ticket', 'Text.', 1, 0, 'desk' FROM s"
    )
    project.execute(f"INSERT INTO remark {remarks} SELECT n, n / 3, 'kim', 'Remark.' FROM s")


def test_a_source_that_lost_many_parts_overwrites_nothing_until_a_person_allows_it(project):
    fill(project)
    run_plain(project)
    before = project.texts()
    project.execute("UPDATE ticket SET body = 'New.' WHERE id = 1")
    for loss, left in (
        ("UPDATE remark SET ticket_id = NULL WHERE id > 500", 204),
        ("DELETE FROM remark", 0),
    ):
        project.execute(loss)
        [plan] = plan_runs(project.settings, project.settings.indexes)
        for full in (False, True):
            [outcome] = project.run(full=full).indexes
            assert outcome.state == "failed"
            assert re.search(
                f"part remark has {left} rows where it had 453, .*--allow-deletes", outcome.message
            )
        assert f"has {left} rows" in plan.error
        assert project.texts() == before
    assert run_plain(project, allow_deletes=True).state == "completed"
    assert project.texts() != before
    assert run_plain(project).unchanged == 152


def test_a_part_that_lost_nothing_is_not_hidden_whatever_became_of_the_policies(project):
    fill(project)
    run_plain(project)
    index = project.settings.indexes[0]
    with project.ledger() as ledger, closing(open_source(project.settings, index)) as source:
        guard = DeleteGuard(
            ledger,
            ledger.collections(project.settings.alias("notes"))[0],
            0.5,
            "the policies changed",
        )
        assert count_parts(source, index, guard)["remark"] == 453
        project.execute("DELETE FROM remark WHERE id = 500")
        with pytest.raises(
            SourceError, match="part remark has 452 rows where it had 453, the policies changed"
        ):
            count_parts(source, index, guard)


@pytest.mark.long
def test_small_losses_of_parts_within_a_day_are_one_loss_also_after_a_rebuild(project):
    fill(project)
    clock = Nights()
    run_plain(project, clock=clock)
    for number in range(3):
        clock.sleep(0.2)
        project.execute(
            "DELETE FROM remark WHERE id IN (SELECT id FROM remark ORDER BY id LIMIT 25)"
        )
        assert run_plain(project, full=number == 1, clock=clock).state == "completed"
    project.execute("DELETE FROM ticket WHERE id = 2")
    assert run_plain(project, clock=clock).deleted == 1
    clock.sleep(40)
    with pytest.raises(Died):
        run_plain(project, clock=clock, delete=False)
    project.execute("DELETE FROM remark WHERE id > 700")
    with pytest.raises(SourceError, match="part remark has 329 rows where it had 453"):
        run_plain(project, clock=clock)


def test_a_column_says_the_language_of_a_text_that_is_too_short_to_tell_it_in_any_form(tmp_path):
    project = make_project(tmp_path / "project", LANGUAGES, TRANSLATIONS)

    def by_words(query):
        return {hit.document_id for hit in search(project, query, limit=50) if hit.bm25}

    assert by_words("Sensor") == set()  # it was taken for English, whose words have no such ending
    project.write_settings(LANGUAGES + 'language_column = "locale"\n')
    assert run_plain(project).changed == 3  # all that say a language
    assert by_words("Sensor") == {"1"}
    project.execute("UPDATE translation SET locale = 'german' WHERE id = 4")
    for number, value in enumerate(GERMAN, 10):
        project.execute(
            f"INSERT INTO translation VALUES ({number}, '{value}', 'Sensoren Light', NULL)"
        )
    assert run_plain(project).state == "completed"
    assert by_words("Sensor") == {"1", "4", *map(str, range(10, 10 + len(GERMAN)))}
