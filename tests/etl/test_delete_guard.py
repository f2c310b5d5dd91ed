"""The delete guard over many runs: what it refuses to delete stays until the source has it or a person allows it."""

import pytest

from rag_index.care.index_status import status
from rag_index.care.plan import plan_runs
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
    project.execute("DELETE FROM note WHERE id <= 5050")  # 51 more: with an approval goes whatever the source lost
    outcome = run_plain(project, clock=clock, allow_deletes=True)
    assert (outcome.state, outcome.deleted, held_back(project)) == ("completed", 351, 0)
    assert ids(project) == set(range(5051, 6300))
    project.execute("DELETE FROM note WHERE id >= 6000")  # 300 of 1,249 is too much again
    assert run_plain(project, clock=clock).held_back == 300


def test_nothing_is_deleted_as_long_as_too_much_is_lost(project, clock):
    be_wrong(project)
    run_plain(project, clock=clock)
    be_right(project)
    project.execute("DELETE FROM note WHERE id <= 101")
    for _ in range(2):
        outcome = run_plain(project, clock=clock)
        assert (outcome.state, outcome.deleted, held_back(project)) == ("partial", 0, 1401)
        assert "101 of 300 documents" in outcome.message
    project.execute("INSERT INTO note SELECT * FROM kept WHERE id <= 41")
    outcome = run_plain(project, clock=clock)
    assert (outcome.state, outcome.deleted, held_back(project)) == ("completed", 1360, 0)
    assert ids(project) == RIGHT - set(range(42, 102))


def test_a_run_over_a_wrong_source_that_died_outweighs_nothing(project, clock):
    be_wrong(project, 3000)
    with pytest.raises(Died):
        run_plain(project, clock=clock, delete=False)
    outcome = run_plain(project, clock=clock)
    assert (outcome.held_back, ids(project) >= RIGHT) == (300, True)


def test_small_losses_within_a_day_are_one_loss(tmp_path, clock):
    """A source that is emptied by a twentieth every ten seconds, as a watch sees it, empties nothing."""
    project = Project(tmp_path / "project").fill(1000)
    run_plain(project, clock=clock)
    steps = []
    for step in range(12):
        clock.sleep(10 / 86_400)
        project.execute("DELETE FROM note WHERE id <= ?", step * 50 + 50)
        steps.append(run_plain(project, clock=clock))
    assert [outcome.deleted for outcome in steps] == [50] * 4 + [0] * 8
    assert "50 documents (250 of 1,000 with those lost in the last day)" in steps[4].message
    assert len(ids(project)) == 800
    assert run_plain(project, clock=clock, allow_deletes=True).deleted == 400
    project.execute("DELETE FROM note WHERE id <= 680")
    assert run_plain(project, clock=clock).deleted == 80, "a person allowed what was lost before"


def test_small_losses_of_several_days_are_several(tmp_path, clock):
    project = Project(tmp_path / "project").fill(1000)
    run_plain(project, clock=clock)
    for night in range(3):
        clock.sleep(1.01)
        project.execute("DELETE FROM note WHERE id <= ?", night * 110 + 110)
        assert run_plain(project, clock=clock).deleted == 110


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
    assert ids(project) == RIGHT
    project.execute("UPDATE note SET title = 'back' WHERE id > 105")
    assert run_plain(project, clock=clock).deleted == 5
    assert ids(project) == RIGHT - {101, 102, 103, 104, 105}


def test_a_rebuild_from_a_wrong_source_is_not_published(project, clock):
    be_wrong(project)
    for _ in range(2):
        outcome = run_plain(project, clock=clock, full=True)
        assert outcome.state == "partial"
        assert "the rebuilt test_notes__2 lacks 300 of 300 documents of the live collection" in outcome.message
        assert ids(project) == RIGHT
    run_plain(project, clock=clock)
    be_right(project)
    project.execute("DELETE FROM note WHERE id <= 5")
    assert run_plain(project, clock=clock, full=True).state == "completed"
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


def test_what_came_since_the_index_was_whole_is_guarded_too(tmp_path, clock):
    """The first night had few rows; later ones read many, and none of them came to its end."""
    project = Project(tmp_path / "project").fill(50)
    run_plain(project, clock=clock)
    project.fill(950, first=51)
    with pytest.raises(Died):
        run_plain(project, clock=clock, delete=False)
    project.execute("DELETE FROM note WHERE id > 10")
    for _ in range(3):
        assert run_plain(project, clock=clock).held_back == 990
    assert len(ids(project)) == 1000


@pytest.mark.parametrize(
    ("documents", "lost", "deleted"), [(300, 100, 100), (300, 101, 0), (600, 120, 120), (600, 121, 0)]
)
def test_up_to_a_hundred_documents_or_a_fifth_of_an_index_are_deleted(tmp_path, clock, documents, lost, deleted):
    project = Project(tmp_path / "project").fill(documents)
    run_plain(project, clock=clock)
    project.execute("DELETE FROM note WHERE id <= ?", lost)
    assert run_plain(project, clock=clock).deleted == deleted
