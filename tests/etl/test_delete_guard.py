"""The delete guard over many runs: what it refuses to delete stays until the source has it or a
person allows it."""

import pytest

from rag_index.care.index_status import status
from rag_index.care.plan import plan_runs
from rag_index.etl import deletes
from tests.etl.plain import Died, Nights, run_plain
from tests.project import Project

UNGUARDED = deletes.UNGUARDED_DELETES
RIGHT, WRONG = set(range(1, 31)), set(range(5000, 5130))


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Guard from a tenth as many deletions on, for indexes that are as small."""
    monkeypatch.setattr(deletes, "UNGUARDED_DELETES", UNGUARDED // 10)


@pytest.fixture
def clock() -> Nights:
    return Nights()


@pytest.fixture
def project(tmp_path, clock) -> Project:
    project = Project(tmp_path / "project").fill(30)
    assert run_plain(project, clock=clock).state == "completed"
    return project


def ids(project: Project) -> set[int]:
    return {int(payload["_rag"]["document_id"]) for payload, _ in project.points().values()}


def be_wrong(project: Project, count: int = 130) -> None:
    """Put other documents in the place of those of the source."""
    project.execute("CREATE TABLE IF NOT EXISTS kept AS SELECT * FROM note")
    project.execute("DELETE FROM note")
    project.fill(count, first=5000)


def be_right(project: Project) -> None:
    project.execute("DELETE FROM note")
    project.execute("INSERT INTO note SELECT * FROM kept")


def held_back(project: Project) -> int:
    return status(project.settings).indexes[0].held_back


def test_a_wrong_source_never_empties_the_index_and_leaves_nothing_behind(project, clock):
    be_wrong(project)
    for _ in range(3):
        clock.sleep()
        [plan] = plan_runs(project.settings, project.settings.indexes)
        outcome = run_plain(project, clock=clock)
        assert (outcome.state, outcome.held_back, outcome.deleted) == ("partial", 30, 0)
        assert "30 of 30 documents" in outcome.message
        assert "--allow-deletes" in outcome.message
        assert (plan.held_back, "30 of 30" in plan.message, ids(project)) == (
            30,
            True,
            RIGHT | WRONG,
        )
        assert held_back(project) == 30
    be_right(project)
    clock.sleep()
    outcome = run_plain(project, clock=clock)
    assert (outcome.state, outcome.deleted, outcome.held_back) == ("completed", 130, 0)
    assert (ids(project), held_back(project)) == (RIGHT, 0)


def test_a_person_allows_what_was_held_back(project, clock):
    be_wrong(project)
    run_plain(project, clock=clock)
    project.execute(
        "DELETE FROM note WHERE id <= 5005"
    )  # 6 more: with an approval goes whatever the source lost
    outcome = run_plain(project, clock=clock, allow_deletes=True)
    assert (outcome.state, outcome.deleted, held_back(project)) == ("completed", 36, 0)
    assert ids(project) == set(range(5006, 5130))
    project.execute("DELETE FROM note WHERE id >= 5100")  # 30 of 124 is too much again
    assert run_plain(project, clock=clock).held_back == 30


def test_nothing_is_deleted_as_long_as_too_much_is_lost(project, clock):
    be_wrong(project)
    run_plain(project, clock=clock)
    be_right(project)
    project.execute("DELETE FROM note WHERE id <= 11")
    for _ in range(2):
        outcome = run_plain(project, clock=clock)
        assert (outcome.state, outcome.deleted, held_back(project)) == ("partial", 0, 141)
        assert "11 of 30 documents" in outcome.message
    project.execute("INSERT INTO note SELECT * FROM kept WHERE id <= 5")
    outcome = run_plain(project, clock=clock)
    assert (outcome.state, outcome.deleted, held_back(project)) == ("completed", 136, 0)
    assert ids(project) == RIGHT - set(range(6, 12))


def test_a_run_over_a_wrong_source_that_died_outweighs_nothing(project, clock):
    be_wrong(project, 300)
    with pytest.raises(Died):
        run_plain(project, clock=clock, delete=False)
    assert (run_plain(project, clock=clock).held_back, ids(project) >= RIGHT) == (30, True)


@pytest.mark.long
def test_small_losses_within_a_day_are_one_loss(tmp_path, clock):
    """A source that is emptied by a twentieth every ten seconds, as a watch sees it, empties
    nothing."""
    project = Project(tmp_path / "project").fill(100)
    run_plain(project, clock=clock)
    steps = []
    for step in range(12):
        clock.sleep(10 / 86_400)
        project.execute("DELETE FROM note WHERE id <= ?", step * 5 + 5)
        steps.append(run_plain(project, clock=clock))
    assert [outcome.deleted for outcome in steps] == [5] * 4 + [0] * 8
    assert "5 documents (25 of 100 with those lost in the last day)" in steps[4].message
    assert (len(ids(project)), run_plain(project, clock=clock, allow_deletes=True).deleted) == (
        80,
        40,
    )
    project.execute("DELETE FROM note WHERE id <= 68")
    assert run_plain(project, clock=clock).deleted == 8, "a person allowed what was lost before"


@pytest.mark.long
def test_small_losses_of_several_days_are_several_and_months_of_churn_are_no_loss(tmp_path, clock):
    """A log keeps its last rows: each time the oldest go and as many come, until none of the first
    is left."""
    project = Project(tmp_path / "project").fill(100)
    run_plain(project, clock=clock)
    for night in range(10):
        clock.sleep(1.01)
        project.execute("DELETE FROM note WHERE id <= ?", 11 * (night + 1))
        if night > 2:
            project.fill(11, first=68 + 11 * night)
        outcome = run_plain(project, clock=clock)
        assert (outcome.state, outcome.deleted) == ("completed", 11)


def test_emptied_texts_are_held_back_until_they_have_text_again(project, clock):
    project.execute("CREATE TABLE kept AS SELECT * FROM note")
    project.execute("UPDATE note SET title = '', body = NULL WHERE id > 10")
    project.fill(130, first=5000)
    for _ in range(2):
        assert (run_plain(project, clock=clock).held_back, ids(project)) == (20, RIGHT | WRONG)
    be_right(project)
    assert (run_plain(project, clock=clock).deleted, ids(project)) == (130, RIGHT)


def test_emptied_texts_that_are_held_back_are_read_again_with_digests(project, clock, monkeypatch):
    """A row that stays unread is no sign that its text is back."""
    monkeypatch.setattr("rag_index.components.sources.digest.MIN_ROWS", 0)
    run_plain(project, clock=clock)
    project.execute("UPDATE note SET title = '', body = NULL WHERE id > 10")
    for _ in range(3):
        assert run_plain(project, clock=clock).held_back == 20
    assert ids(project) == RIGHT
    project.execute("UPDATE note SET title = 'back' WHERE id > 15")
    assert (run_plain(project, clock=clock).deleted, ids(project)) == (
        5,
        RIGHT - {11, 12, 13, 14, 15},
    )


def test_a_rebuild_from_a_wrong_source_is_not_published(project, clock):
    be_wrong(project)
    for _ in range(2):
        outcome = run_plain(project, clock=clock, full=True)
        assert outcome.state == "partial"
        assert (
            "the rebuilt test_notes__2 lacks 30 of 30 documents of the live collection"
            in outcome.message
        )
        assert ids(project) == RIGHT
    run_plain(project, clock=clock)
    be_right(project)
    project.execute("DELETE FROM note WHERE id <= 5")
    assert run_plain(project, clock=clock, full=True).state == "completed"
    assert ids(project) == RIGHT - {1, 2, 3, 4, 5}


def test_losses_before_a_rebuild_count_after_it(tmp_path, clock):
    project = Project(tmp_path / "project").fill(100)
    run_plain(project, clock=clock)
    project.execute("DELETE FROM note WHERE id <= 15")
    assert run_plain(project, clock=clock, full=True).state == "completed"
    project.execute("DELETE FROM note WHERE id <= 25")
    assert run_plain(project, clock=clock).held_back == 10


@pytest.mark.parametrize("whole", [0, 5])
def test_what_came_since_the_index_was_whole_or_before_it_ever_was_is_guarded_too(
    tmp_path, clock, whole
):
    """The first night had no or few rows; a later one read many, and did not come to its end."""
    project = Project(tmp_path / "project").fill(whole)
    if whole:
        run_plain(project, clock=clock)
    project.fill(30 - whole, first=whole + 1)
    with pytest.raises(Died):
        run_plain(project, clock=clock, delete=False)
    project.execute("DELETE FROM note WHERE id > 15")
    for _ in range(2):
        assert (run_plain(project, clock=clock).held_back, ids(project)) == (15, RIGHT)
    project.execute("DELETE FROM note")
    assert (run_plain(project, clock=clock).held_back, ids(project)) == (30, RIGHT)


@pytest.mark.parametrize(
    ("documents", "lost", "deleted"), [(30, 10, 10), (30, 11, 0), (60, 12, 12), (60, 13, 0)]
)
def test_up_to_a_hundred_documents_or_a_fifth_of_an_index_are_deleted(
    tmp_path, clock, documents, lost, deleted
):
    assert UNGUARDED == 100
    project = Project(tmp_path / "project").fill(documents)
    run_plain(project, clock=clock)
    project.execute("DELETE FROM note WHERE id <= ?", lost)
    assert run_plain(project, clock=clock).deleted == deleted
