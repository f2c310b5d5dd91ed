"""The delete guard over many nights: what it holds back stays until the source has it again or a person allows it."""

import pytest

from rag_index.care.doctor.checkup import examine
from rag_index.care.index_status import status
from rag_index.care.plan import plan_runs
from rag_index.components.ledger import Counts
from rag_index.etl.changed import index_documents
from rag_index.etl.delete_guard import Loss
from tests.etl.plain import Died, Nights, run_plain
from tests.project import Project


@pytest.fixture
def clock() -> Nights:
    return Nights()


@pytest.fixture
def project(tmp_path, clock) -> Project:
    project = Project(tmp_path / "project").fill(300)
    assert run_plain(project, clock=clock).state == "completed"
    return project


def ids(project: Project) -> set[int]:
    return {int(payload["_rag"]["document_id"]) for payload, _ in project.points().values()}


def be_wrong(project: Project, count: int = 1300) -> None:
    """Put other documents in the place of those of the source."""
    project.execute("CREATE TABLE IF NOT EXISTS kept AS SELECT * FROM note")
    project.execute("DELETE FROM note")
    project.fill(count, first=5000)


def be_right(project: Project) -> None:
    project.execute("DELETE FROM note")
    project.execute("INSERT INTO note SELECT * FROM kept")


def held_back(project: Project) -> int:
    return status(project.settings).indexes[0].held_back


RIGHT, WRONG = set(range(1, 301)), set(range(5000, 6300))


def test_a_wrong_source_never_empties_the_index_and_leaves_nothing_behind(project, clock):
    be_wrong(project)
    for _ in range(3):
        clock.sleep()
        [plan] = plan_runs(project.settings, project.settings.indexes)
        outcome = run_plain(project, clock=clock)
        assert (outcome.state, outcome.held_back, outcome.deleted) == ("partial", 300, 0)
        assert "300 of 300 documents" in outcome.message
        assert "--allow-deletes" in outcome.message
        assert (plan.held_back, "300 of 300" in plan.message) == (300, True)
        assert ids(project) == RIGHT | WRONG
        assert held_back(project) == 300
    be_right(project)
    clock.sleep()
    outcome = run_plain(project, clock=clock)
    assert (outcome.state, outcome.deleted, outcome.held_back) == ("completed", 1300, 0)
    assert ids(project) == RIGHT
    assert held_back(project) == 0


def test_a_person_allows_what_was_held_back(project, clock):
    be_wrong(project)
    run_plain(project, clock=clock)
    project.execute("DELETE FROM note WHERE id <= 5050")  # 51 more: with an approval goes what any run would delete
    outcome = run_plain(project, clock=clock, allow_deletes=True)
    assert (outcome.state, outcome.deleted, held_back(project)) == ("completed", 351, 0)
    assert ids(project) == set(range(5051, 6300))
    project.execute("DELETE FROM note WHERE id >= 6000")  # 300 of 1,249 is too much again
    assert run_plain(project, clock=clock).held_back == 300


def test_an_approval_is_for_what_was_shown_and_not_for_what_the_source_lost_since(tmp_path, clock):
    project = Project(tmp_path / "project").fill(1000)
    run_plain(project, clock=clock)
    project.execute("DELETE FROM note WHERE id <= 300")
    assert run_plain(project, clock=clock).held_back == 300  # a person reads this, while the source loses more
    project.execute("DELETE FROM note WHERE id <= 700")
    project.execute("UPDATE note SET title = NULL, body = '' WHERE id > 950")
    outcome = run_plain(project, clock=clock, allow_deletes=True)
    assert (outcome.state, outcome.deleted, outcome.held_back) == ("partial", 300, 450)
    assert "450 of 700 documents would be deleted, more than delete_guard (20%) allows; what was held back" in (
        outcome.message
    )
    assert ids(project) == set(range(301, 1001))
    again = run_plain(project, clock=clock)
    assert (again.deleted, again.held_back) == (0, 450)
    assert run_plain(project, clock=clock, allow_deletes=True).deleted == 450
    assert ids(project) == set(range(701, 951))


def test_what_does_not_come_back_stays_held_back_and_holds_up_nothing_else(project, clock):
    be_wrong(project)
    run_plain(project, clock=clock)
    be_right(project)
    project.execute("DELETE FROM note WHERE id <= 5")
    for _ in range(2):
        outcome = run_plain(project, clock=clock)
        assert (outcome.state, outcome.held_back) == ("partial", 5)
        assert "5 documents are held back" in outcome.message
        assert ids(project) == RIGHT
    project.execute("DELETE FROM note WHERE id = 6")
    assert run_plain(project, clock=clock).deleted == 1
    assert ids(project) == RIGHT - {6}
    assert "5 documents are held back" in " ".join(advice.message for advice in examine(project.settings).advice)
    assert index_documents(project.settings, "notes", ["4"]).deleted == 1, "naming a document allows its deletion"
    outcome = run_plain(project, clock=clock, allow_deletes=True)
    assert (outcome.state, outcome.deleted, ids(project)) == ("completed", 4, RIGHT - {1, 2, 3, 4, 5, 6})


def test_a_run_over_a_wrong_source_that_died_outweighs_nothing(project, clock):
    be_wrong(project, 3000)
    with pytest.raises(Died):
        run_plain(project, clock=clock, delete=False)
    outcome = run_plain(project, clock=clock)
    assert (outcome.held_back, ids(project) >= RIGHT) == (300, True)


def test_small_losses_in_a_row_are_one_loss(tmp_path, clock):
    project = Project(tmp_path / "project").fill(1000)
    run_plain(project, clock=clock)
    nights = []
    for night in range(15):
        clock.sleep()
        project.execute("DELETE FROM note WHERE id > ? AND id <= ?", night * 20, night * 20 + 20)
        nights.append(run_plain(project, clock=clock))
    assert [outcome.deleted for outcome in nights] == [20] * 10 + [0] * 5
    assert "20 documents (220 of 1,000 with those lost in the last 30 days)" in nights[10].message
    assert len(ids(project)) == 800
    assert run_plain(project, clock=clock, allow_deletes=True).deleted == 100
    clock.sleep()
    project.execute("DELETE FROM note WHERE id > 900")
    assert run_plain(project, clock=clock).deleted == 100, "a person allowed what was lost before"


def test_months_of_churn_are_no_loss(tmp_path, clock):
    """A log keeps its last rows: each time the oldest go and as many come, until none of the first is left."""
    project = Project(tmp_path / "project").fill(600)
    run_plain(project, clock=clock)
    for time in range(6):
        clock.sleep(4)
        project.execute("DELETE FROM note WHERE id <= ?", 110 * (time + 1))
        project.fill(110, first=601 + 110 * time)
        outcome = run_plain(project, clock=clock)
        assert (outcome.state, outcome.deleted) == ("completed", 110)


def test_emptied_texts_are_held_back_until_they_have_text_again(project, clock):
    project.execute("CREATE TABLE kept AS SELECT * FROM note")
    project.execute("UPDATE note SET title = '', body = NULL WHERE id > 100")
    project.fill(1300, first=5000)
    for _ in range(2):
        assert run_plain(project, clock=clock).held_back == 200
        assert ids(project) == RIGHT | WRONG
    be_right(project)
    assert run_plain(project, clock=clock).deleted == 1300
    assert ids(project) == RIGHT


def test_emptied_texts_that_are_held_back_are_read_again_with_digests(project, clock, monkeypatch):
    """A row that stays unread is no sign that its text is back."""
    monkeypatch.setattr("rag_index.components.sources.digest.MIN_ROWS", 0)
    run_plain(project, clock=clock)
    project.execute("UPDATE note SET title = '', body = NULL WHERE id > 100")
    for _ in range(3):
        assert run_plain(project, clock=clock).held_back == 200
    project.execute("UPDATE note SET title = 'back' WHERE id > 105")
    for _ in range(2):
        assert run_plain(project, clock=clock).held_back == 5
    assert ids(project) == RIGHT


def test_a_rebuild_is_published_neither_from_a_wrong_source_nor_without_what_is_held_back(project, clock):
    be_wrong(project)
    for _ in range(2):
        outcome = run_plain(project, clock=clock, full=True)
        assert outcome.state == "partial"
        assert "the rebuilt test_notes__2 lacks 300 of 300 documents of the live collection" in outcome.message
        assert ids(project) == RIGHT
    run_plain(project, clock=clock)
    be_right(project)
    project.execute("DELETE FROM note WHERE id <= 5")
    outcome = run_plain(project, clock=clock, full=True)
    assert outcome.state == "partial"
    assert "lacks 5 documents of the live collection, which are held back" in outcome.message
    assert ids(project) >= RIGHT
    assert run_plain(project, clock=clock, full=True, allow_deletes=True).state == "completed"
    assert ids(project) == RIGHT - {1, 2, 3, 4, 5}


def test_losses_before_a_rebuild_count_after_it(tmp_path, clock):
    project = Project(tmp_path / "project").fill(1000)
    run_plain(project, clock=clock)
    project.execute("DELETE FROM note WHERE id <= 150")
    assert run_plain(project, clock=clock, full=True).state == "completed"
    project.execute("DELETE FROM note WHERE id <= 250")
    assert run_plain(project, clock=clock).held_back == 100


def test_an_index_that_was_never_whole_is_guarded_too(tmp_path, clock):
    project = Project(tmp_path / "project").fill(300)
    with pytest.raises(Died):
        run_plain(project, clock=clock, delete=False)
    project.execute("DELETE FROM note WHERE id > 150")
    for _ in range(2):
        assert (run_plain(project, clock=clock).held_back, ids(project)) == (150, RIGHT)
    project.execute("DELETE FROM note")
    assert (run_plain(project, clock=clock).held_back, ids(project)) == (300, RIGHT)


@pytest.mark.parametrize(
    ("deletions", "before", "largest", "reason"),
    [
        (Counts(100, 100, 0), Counts(100, 100, 0), 100, ""),  # never guarded
        (Counts(101, 101, 0), Counts(300, 300, 0), 300, "101 of 300"),
        (Counts(200, 200, 0), Counts(1000, 1000, 0), 1000, ""),
        (Counts(201, 201, 0), Counts(1000, 1000, 0), 1000, "201 of 1,000"),
        (Counts(1, 1, 0), Counts(800, 800, 0), 1000, "201 of 1,000 with those lost"),
        (Counts(0, 0, 0), Counts(500, 500, 0), 1000, ""),  # nothing more is lost
        (Counts(1300, 0, 0), Counts(1600, 300, 300), 300, ""),  # of the source that lost the others
        (Counts(1300, 0, 0), Counts(1600, 300, 5), 300, "1,300 of 1,600"),
        (Counts(1300, 0, 0), Counts(1600, 300, 0), 300, "1,300 of 1,600"),
    ],
)
def test_what_is_too_much(deletions, before, largest, reason):
    lost = Loss(deletions, before, largest).sentence(0.2)
    assert (reason in lost) if reason else not lost
