"""A change of rights is in force after the next run, or at once, and embeds nothing, whatever else
happens. Row level security of PostgreSQL: what init, plan and doctor say of it, and rows that it
hides are no loss."""

import re

import numpy as np
import pytest

from rag_index.care.doctor import examine
from rag_index.care.index_status import failed
from rag_index.care.plan import plan_runs
from rag_index.components.ledger import tables
from rag_index.core.documents.batches import CommitMark, PointBatch
from rag_index.core.documents.groups import stored_groups
from rag_index.core.documents.keys import point_id
from rag_index.etl import deletes
from rag_index.etl.changed import index_documents
from tests.etl.plain import printed, run_plain
from tests.live.postgres import PASSWORD
from tests.project import SETTINGS, Project, run_here
from tests.twin import STORE, back_up, restore, twin

COLUMN = 'access = "acl"\n'
PAIRS = 'access = "SELECT note_id, name FROM acl"\n'
COUNT = 30
TENANT = "CREATE POLICY tenant ON ticket USING (tenant = current_setting('app.tenant', true))"
INDEX = '[[indexes]]\nname = "tickets"\nkey = "id"\n'
TABLE = 'table = "ticket"\ntext = "body"\n'
OWN_VIEW = "CREATE VIEW shown AS SELECT * FROM ticket"


def make_project(folder, access: str, extra: str = "") -> Project:
    """Return a project whose notes 1 to 30 are for staff; every tenth has several chunks."""
    project = Project(folder, extra=extra)
    project.write_settings(SETTINGS.format(extra=extra) + access)
    project.execute("ALTER TABLE note ADD COLUMN acl TEXT")
    project.execute("ALTER TABLE note ADD COLUMN at TEXT DEFAULT '2024-01-01'")
    project.execute("CREATE TABLE acl (note_id INTEGER, name TEXT)")
    with project.source() as db:
        rows = [
            (i, f"Note {i}", f"text {i} " * (60 if i % 10 == 0 else 1), "ann", 1)
            for i in range(1, COUNT + 1)
        ]
        db.executemany(
            "INSERT INTO note (id, title, body, author, priority) VALUES (?, ?, ?, ?, ?)", rows
        )
        db.execute("UPDATE note SET acl = 'staff'")
        db.execute("INSERT INTO acl SELECT id, 'staff' FROM note")
    return project


def grant(project: Project, number: int, *names: str) -> None:
    """Give a note to these groups, in the column and in the pairs."""
    project.execute("UPDATE note SET acl = ? WHERE id = ?", ",".join(names) or None, number)
    project.execute("DELETE FROM acl WHERE note_id = ?", number)
    for name in names:
        project.execute("INSERT INTO acl VALUES (?, ?)", number, name)


def groups(project: Project) -> dict[str, list[str]]:
    """Return the groups of each document's points, which must all have the same."""
    found: dict[str, list[str]] = {}
    for payload, _ in project.points().values():
        own = stored_groups(payload)
        assert own is not None
        assert found.setdefault(payload["_rag"]["document_id"], own) == own
        assert "acl" not in payload
    return found


def doctor_finds(project: Project) -> list[str]:
    kinds = [finding.kind for finding in examine(project.settings).findings]
    return [kind for kind in kinds if kind != "failed_documents"]


@pytest.fixture(scope="module", params=[COLUMN, PAIRS], ids=["column", "pairs"])
def clean(request, tmp_path_factory) -> Project:
    project = make_project(tmp_path_factory.mktemp("access") / "project", request.param)
    assert run_plain(project).state == "completed"
    return project


@pytest.fixture
def project(clean, tmp_path) -> Project:
    return twin(clean, tmp_path / "project")


@pytest.mark.long
def test_a_change_of_rights_is_a_payload_update(project):
    before = {point: vector for point, (_, vector) in project.points().items()}
    assert groups(project) == {str(i): ["staff"] for i in range(1, COUNT + 1)}
    grant(project, 10, "board", "staff")
    grant(project, 11)
    plan = plan_runs(project.settings, project.settings.indexes)[0]
    assert (plan.payload_only, plan.changed, plan.unchanged) == (2, 0, COUNT - 2)
    outcome = run_plain(project)
    assert (outcome.payload_only, outcome.changed, outcome.unchanged) == (2, 0, COUNT - 2)
    assert groups(project) == {str(i): ["staff"] for i in range(1, COUNT + 1)} | {
        "10": ["board", "staff"],
        "11": [],
    }
    assert {point: vector for point, (_, vector) in project.points().items()} == before
    assert (run_plain(project).unchanged, doctor_finds(project)) == (COUNT, [])


def test_a_change_is_in_force_in_a_moment_with_index_id_and_after_a_rebuild(project):
    grant(project, 3, "board")
    grant(project, 4, "board")
    outcome = index_documents(project.settings, "notes", ["3"])
    assert (outcome.state, outcome.payload_only) == ("completed", 1)
    assert (groups(project)["3"], groups(project)["4"]) == (["board"], ["staff"])
    assert run_plain(project, full=True).state == "completed"
    assert (groups(project)["3"], groups(project)["4"]) == (["board"], ["board"])
    with project.store() as store:
        assert store.points("test_notes").metadata()["payload_indexes"] == {
            "_rag.groups": "keyword"
        }


def test_rights_are_as_in_the_source_after_a_copy_from_before_they_were_taken_away(
    project, tmp_path
):
    """The document cannot be read, so its groups alone were written."""
    kept = back_up(project, tmp_path / "kept", STORE)
    project.execute("UPDATE note SET body = x'00ff' WHERE id = 3")
    grant(project, 3, "board")
    run_plain(project)
    assert groups(project)["3"] == ["board"]
    restore(project, kept, STORE)
    assert groups(project)["3"] == ["staff"]
    assert "put back to an older copy" in run_plain(project).message
    assert groups(project)["3"] == ["board"]


@pytest.mark.long
def test_a_rollback_gives_nobody_back_what_was_taken_away(project):
    run_plain(project, full=True)
    grant(project, 10, "board")
    grant(project, 4)
    project.execute("DELETE FROM note WHERE id = 5")
    run_plain(project)
    now = groups(project)
    back = printed(project, "rollback", "notes")
    assert (back["live"], back["returned"], groups(project)) == (
        "test_notes__1",
        1,
        now | {"5": []},
    )
    assert (now["10"], now["4"]) == (["board"], [])
    again = run_plain(project)
    assert (again.unchanged, again.deleted, again.payload_only) == (COUNT - 1, 1, 0)
    assert groups(project) == now
    said = run_here(project.config, "rollback", "notes")[0]
    assert "no longer had" not in said, "the newer one has nothing that is gone"
    grant(project, 11, "board")
    run_plain(project)
    project.write_settings(SETTINGS.format(extra=""))
    printed(project, "rollback", "notes")
    assert groups(project)["11"] == ["board"], "whatever the settings say now"


def test_a_rollback_deletes_what_a_dead_run_left_and_nobody_knows_whose_it_is(project, ledger):
    run_plain(project, full=True)
    with project.store() as store:
        old = ledger.collection("test_notes__1")
        ledger.mark_pending(old.id, ["10", "77"])
        fewer = "UPDATE rag_index_documents SET chunks = 1 WHERE key = '10' AND collection_id = 1"
        with ledger.transaction() as connection:
            connection.exec_driver_sql(fewer)
        left = store.points(old.name).retrieve([point_id("notes", "10", 0)], vectors=True)[0]
        ours = {**left.payload["_rag"], "key": "77", "chunk": 0}
        vectors = np.asarray([left.vector], dtype=np.float32)
        store.points(old.name).upsert(
            PointBatch([point_id("notes", "77", 0)], vectors, [{**left.payload, "_rag": ours}])
        )
        grant(project, 10, "board")
    run_plain(project)
    printed(project, "rollback", "notes")
    found = groups(project)
    assert (found["10"], "77" in found, len(project.texts()["10"])) == (["board"], False, 1)


def test_a_collection_that_was_put_back_is_not_rolled_back_to(project):
    run_plain(project, full=True)
    with project.store() as store:
        store.points("test_notes__1").set_commit_mark(CommitMark())
    refused = run_here(project.config, "rollback", "notes", code=1)[1]
    assert (
        "put back to an older copy, so it may show what is closed to everyone: `rag-index rebuild"
        " notes`" in refused
    )
    assert printed(project, "status")["indexes"][0]["collection"] == "test_notes__2"


def test_an_index_gets_access_later_and_loses_it_again(tmp_path):
    project = make_project(tmp_path / "project", "")
    run_plain(project)
    assert all(stored_groups(payload) is None for payload, _ in project.points().values())
    project.write_settings(SETTINGS.format(extra="") + COLUMN)
    assert (run_plain(project).payload_only, groups(project)["1"]) == (COUNT, ["staff"])
    project.write_settings(SETTINGS.format(extra=""))
    assert run_plain(project).payload_only == COUNT
    assert all(stored_groups(payload) is None for payload, _ in project.points().values())
    assert doctor_finds(project) == []


@pytest.mark.parametrize("clean", [PAIRS], indirect=True)
def test_pairs_that_change_alone_are_found_with_digests(project, monkeypatch):
    monkeypatch.setattr("rag_index.components.sources.digest.MIN_ROWS", 0)
    run_plain(project)
    grant(project, 5, "board")
    outcome = run_plain(project)
    assert (outcome.payload_only, outcome.changed, outcome.documents) == (1, 0, COUNT)
    assert groups(project)["5"] == ["board"]


@pytest.fixture
def hosted(tmp_path, fake) -> Project:
    project = make_project(
        tmp_path / "project", COLUMN, fake.settings + "[run]\nwait_for_recovery = 5\n"
    )
    run_plain(project)
    return project


def test_rights_that_were_taken_away_are_gone_even_if_the_new_text_cannot_be_embedded(
    hosted, fake, monkeypatch
):
    fake.fault("status", code=400, marker="POISON", words="cannot embed this")
    hosted.execute("UPDATE note SET body = 'POISON' WHERE id = 10")
    grant(hosted, 10, "board")
    assert (run_plain(hosted).state, groups(hosted)["10"]) == ("partial", ["board"])
    assert "text 10" in hosted.texts()["10"][0], "the text is the old one"
    assert doctor_finds(hosted) == []
    run_plain(hosted)
    grant(hosted, 10)
    monkeypatch.setattr(tables, "RETRY_PERIOD", 0.0)
    run_plain(hosted)
    assert groups(hosted)["10"] == []
    assert {
        one.document_id: one.tries for one in failed(hosted.settings, hosted.settings.indexes)
    } == {"10": 2}
    assert doctor_finds(hosted) == []
    fake.clear()
    hosted.execute("UPDATE note SET body = 'good again' WHERE id = 10")
    grant(hosted, 10, "staff")
    assert run_plain(hosted).changed == 1
    assert (groups(hosted)["10"], hosted.texts()["10"]) == (["staff"], ["Note 10\ngood again"])


def test_rights_of_emptied_documents_that_the_delete_guard_holds_back_follow_the_source(
    project, monkeypatch
):
    monkeypatch.setattr(deletes, "UNGUARDED_DELETES", 5)
    project.execute("UPDATE note SET title = '', body = ''")
    grant(project, 10)
    assert run_plain(project).held_back == COUNT
    assert len(groups(project)) == COUNT, "the guard keeps them"
    assert groups(project)["10"] == []


def test_rights_of_what_a_dead_run_left_follow_the_source(hosted, fake):
    with hosted.ledger() as ledger:
        ledger.mark_pending(ledger.collections("test_notes")[-1].id, ["10"])
    fake.fault("status", code=400, marker="Note 10")
    grant(hosted, 10, "board")
    run_plain(hosted)
    assert groups(hosted).get("10", ["board"]) == ["board"]


class Tenants:
    """A database with tickets of two tenants, of which `reader` sees those of `a`."""

    def __init__(self, postgres, name, folder):
        self.server, self.name, self.reader = postgres, name, f"reader_{name}"
        self.run(
            f"CREATE ROLE {self.reader} LOGIN PASSWORD '{PASSWORD}'; ALTER ROLE {self.reader} SET"
            " app.tenant = 'a';CREATE TABLE ticket (id int PRIMARY KEY, subject text, body text,"
            " tenant text);CREATE TABLE reply (id int PRIMARY KEY, ticket int REFERENCES ticket,"
            " body text);INSERT INTO ticket SELECT n, 'Printer ' || n, 'The printer on floor ' ||"
            " n || ' prints nothing but blank pages since Monday', CASE WHEN n > 2 THEN 'a' ELSE"
            " 'b' END FROM generate_series(1, 20) n;INSERT INTO reply SELECT n, n, 'Switch it off"
            f" and on' FROM generate_series(1, 20) n;GRANT USAGE ON SCHEMA public TO {self.reader};"
            f" ALTER TABLE ticket ENABLE ROW LEVEL SECURITY; {TENANT};ALTER DEFAULT PRIVILEGES"
            f" GRANT SELECT ON TABLES TO {self.reader};GRANT SELECT ON ALL TABLES IN SCHEMA public"
            f" TO {self.reader}"
        )
        self.project = Project(folder)

    def run(self, statement):
        with self.server.connect(self.name) as connection:
            connection.execute(statement)

    def url(self, role=None):
        return self.server.url(self.name, role or self.reader).render_as_string(hide_password=False)

    def settings(self, index=TABLE, role=None):
        self.project.write_settings(
            f'project = "test"\n[source]\nurl = "{self.url(role)}"\n{INDEX}{index}'
        )
        return self.project

    def plan(self, index=TABLE, role=None):
        return run_here(self.settings(index, role).config, "plan")[0]


@pytest.fixture
def tenants(postgres, tmp_path):
    with postgres.database() as name:
        made = Tenants(postgres, name, tmp_path / "project")
        yield made
        made.run(f"DROP OWNED BY {made.reader} CASCADE; DROP ROLE {made.reader}")


def test_a_reader_who_sees_all_is_warned_of_first(tenants):
    said = "ticket: searches show the rows of ticket to everybody: .* since owner is a superuser"
    plan = tenants.plan(role="owner")
    assert "searches show the rows of ticket to everybody" in plan, plan
    assert printed(tenants.project, "doctor", code=3)["findings"][0]["kind"] == "ignored_policies"
    tenants.project.config.unlink()
    out = run_here(tenants.project.config, "init", "--source", tenants.url("owner"))[0]
    assert re.search(f"^{said}", out, re.MULTILINE), out
    assert tenants.project.config.read_text().startswith(
        "# Rights of the user of this database:\n# - ticket: searches"
    )
    assert "to everybody" not in tenants.plan(TABLE + 'access = "tenant"\n', role="owner")


@pytest.mark.parametrize(
    ("index", "statement", "said"),
    [
        (
            TABLE,
            "SELECT",
            "{reader} sees only the rows of ticket that row level security shows (tenant)",
        ),
        (
            'query = "SELECT id, body FROM reply r"\ntext = "body"\n',
            "ALTER TABLE reply ENABLE ROW LEVEL SECURITY",
            "row level security of reply shows no row to {reader}",
        ),
        (
            'query = "SELECT id, body FROM shown"\ntext = "body"\n',
            OWN_VIEW,
            "to everybody: .*owner is a superuser",
        ),
        (
            (
                "query = \"SELECT id, body, E'it\\\\'s' AS x FROM shown WHERE body <> ''\"\ntext ="
                ' "body"\n'
            ),
            OWN_VIEW,
            "to everybody: .*owner is a superuser",
        ),
        (
            (
                "query = \"SELECT id, body, $$it's$$ AS x FROM shown WHERE body <> ''\"\ntext ="
                ' "body"\n'
            ),
            OWN_VIEW,
            "to everybody: .*owner is a superuser",
        ),
        (
            (
                'query = "SELECT id, body FROM ticket WHERE id IS DISTINCT FROM public.ticket.id +'
                ' 1"\ntext = "body"\n'
            ),
            "SELECT",
            "{reader} sees only the rows of ticket",
        ),
        (
            'table = "shown"\ntext = "body"\n',
            f"{OWN_VIEW}; ALTER VIEW shown SET (security_invoker = on)",
            "{reader} sees only the rows of ticket",
        ),
        (TABLE, "ALTER ROLE {reader} BYPASSRLS", "{reader} has BYPASSRLS"),
        (TABLE, "ALTER TABLE ticket OWNER TO {reader}", "{reader} owns the table"),
        (
            TABLE,
            "ALTER TABLE ticket OWNER TO {reader}, FORCE ROW LEVEL SECURITY",
            "{reader} sees only",
        ),
        (
            (
                'table = "ticket"\n[[indexes.parts]]\ntable = "reply"\non = "ticket"\norder_by ='
                ' "id"\ntext = ["body"]\n'
            ),
            "ALTER TABLE reply ENABLE ROW LEVEL SECURITY",
            "reply shows no row to {reader}",
        ),
    ],
    ids=[
        "table",
        "query",
        "view",
        "text",
        "dollars",
        "three parts",
        "invoker",
        "bypass",
        "owner",
        "forced",
        "part",
    ],
)
def test_plan_says_who_reads_and_what_he_sees(tenants, index, statement, said):
    tenants.run(statement.format(reader=tenants.reader) if statement != "SELECT" else "SELECT 1")
    plan = tenants.plan(index)
    first, _, second = said.format(reader=tenants.reader).partition(".*")
    assert (first in plan, second in plan) == (True, True), plan


def test_a_reader_who_sees_no_row_is_told_why_and_not_that_the_table_is_empty(tenants):
    tenants.run(f"ALTER ROLE {tenants.reader} SET app.tenant = 'nobody'")
    tenants.project.config.unlink()
    answers = tenants.project.config.with_name("answers.json")
    answers.write_text('{"reply": "leave out"}')
    options = ["--source", tenants.url(), "--answers", str(answers)]
    said = run_here(tenants.project.config, "init", *options, code=2)[1]
    assert f"ticket: cannot be read: {tenants.reader} sees only the rows of ticket" in said
    assert "ticket: is empty" not in said


@pytest.mark.long
@pytest.mark.parametrize(
    "change",
    [
        "DROP POLICY tenant ON ticket",
        "ALTER POLICY tenant ON ticket USING (tenant = 'b')",
        "ALTER ROLE {reader} SET app.tenant = 'b'",
        "CREATE POLICY few ON ticket AS RESTRICTIVE USING (id < 6)",
    ],
)
def test_what_a_changed_policy_hides_is_held_back_and_what_is_deleted_later_is_not(tenants, change):
    project = tenants.settings()
    assert (project.run().state, len(project.texts("tickets"))) == ("completed", 18)
    tenants.run("DELETE FROM reply; DELETE FROM ticket WHERE id = 20")
    assert project.run().indexes[0].deleted == 1, "a deletion is no change of policies"
    tenants.run(change.format(reader=tenants.reader))
    assert "hold back" in run_here(project.config, "plan")[0]
    for run in (project.run("tickets", full=True), project.run()):
        assert (
            "row level security, or the role that reads, changed since the last run"
            in run.indexes[0].message
        )
    assert project.texts("tickets").keys() >= {str(n) for n in range(3, 20)}
    tenants.run(
        f"DROP POLICY IF EXISTS few ON ticket; DROP POLICY IF EXISTS tenant ON ticket; {TENANT}"
    )
    tenants.run(
        f"ALTER ROLE {tenants.reader} SET app.tenant = 'a'; DELETE FROM ticket WHERE id = 19"
    )
    project.run()
    assert project.run(allow_deletes=True).state == "completed"
    assert project.texts("tickets").keys() == {str(n) for n in range(3, 19)}


def test_another_reader_hides_rows_until_a_person_allows_that(tenants):
    assert tenants.settings(role="owner").run().state == "completed"
    project = tenants.settings()
    held = project.run().indexes[0]
    assert (held.deleted, held.state, len(project.texts("tickets"))) == (0, "partial", 20)
    assert (
        project.run(allow_deletes=True).indexes[0].deleted,
        project.run().indexes[0].message,
    ) == (2, "")
