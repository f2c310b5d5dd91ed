"""The nights of a failed document: five with the same text, and five more with another one. Until
it is indexed, the index is complete by no later time."""

import sqlite3

import pytest

from rag_index.care.index_status import failed
from rag_index.components.ledger.tables import DAY
from tests.etl.plain import printed, run_plain, watched_run
from tests.project import Project


@pytest.fixture
def project(tmp_path, fake):
    project = Project(tmp_path / "project", extra=fake.settings).fill(3)
    fake.fault("status", code=400, marker="POISON")
    project.execute("UPDATE note SET body = 'POISON of Monday' WHERE id = 2")
    return project


def pass_nights(project: Project, nights: float) -> None:
    """Let what the ledger recorded until now be so many days older."""
    age = nights * DAY
    with sqlite3.connect(project.folder / ".rag-index" / "ledger.db") as db:
        db.execute(
            "UPDATE rag_index_failed_documents SET first_at = first_at - ?, last_at = last_at - ?,"
            " incomplete_since = incomplete_since - ?",
            (age, age, age),
        )


def asked(fake, words: str) -> bool:
    """Return whether the embedder has received a text with these words since the last call, and
    forget all requests."""
    received = any(words in text for request in fake.embeds() for text in request.texts)
    fake.requests.clear()
    return received


def nights_tried(project: Project, fake, words: str) -> list[bool]:
    """Run the index in seven nights, and return in which of them the document was tried."""
    tried = []
    for _ in range(7):
        assert run_plain(project).failed == 1
        tried.append(asked(fake, words))
        pass_nights(project, 1)
    return tried


FIVE_OF_SEVEN = [True] * 5 + [False] * 2


def test_a_text_is_tried_for_five_nights_and_another_one_for_five_more(project, fake):
    assert nights_tried(project, fake, "POISON of Monday") == FIVE_OF_SEVEN
    project.execute("UPDATE note SET body = 'POISON of Tuesday' WHERE id = 2")
    assert printed(project, "plan")["indexes"][0]["new"] == 1
    assert nights_tried(project, fake, "POISON of Tuesday") == FIVE_OF_SEVEN
    [listed] = failed(project.settings, project.settings.indexes)
    assert (listed.document_id, listed.tries) == ("2", 5)
    project.execute("UPDATE note SET body = 'mended' WHERE id = 2")
    assert run_plain(project).failed == 0
    assert failed(project.settings, project.settings.indexes) == []


def test_a_document_is_listed_since_its_first_text_failed_and_nothing_is_complete_until_it_is_indexed(
    project, fake
):
    assert run_plain(project).failed == 1
    pass_nights(project, 7)
    [first] = printed(project, "status", "--failed")["failed"]
    project.execute("UPDATE note SET body = 'POISON of Tuesday' WHERE id = 2")
    assert run_plain(project).failed == 1
    [again] = printed(project, "status", "--failed")["failed"]
    assert again["incomplete_since"] == first["incomplete_since"] == first["first_tried"]
    assert again["first_tried"] == again["last_tried"] > first["last_tried"]
    assert printed(project, "status")["indexes"][0]["as_of"] is None
    project.execute("UPDATE note SET body = 'mended' WHERE id = 2")
    assert run_plain(project).failed == 0
    assert printed(project, "status")["indexes"][0]["as_of"] is not None


def test_a_watch_tries_a_text_that_changed_after_the_fifth_night_as_one_that_is_new(project, fake):
    watched_run(project)
    pass_nights(project, 6)
    end = watched_run(project)
    assert (asked(fake, "POISON of Monday"), end.next_try) == (
        True,
        None,
    ), "only the first run tried it"
    project.execute("UPDATE note SET body = 'POISON of Tuesday' WHERE id = 2")
    end = watched_run(project)
    assert asked(fake, "POISON of Tuesday")
    [listed] = failed(project.settings, project.settings.indexes)
    assert listed.tries == 1
    with project.ledger() as ledger:
        assert 0 < end.next_try - ledger.clock() <= 60, "it is tried again after a minute"
    pass_nights(project, 1 / 24)
    watched_run(project)
    assert asked(fake, "POISON of Tuesday")
    assert not end.is_index_complete
