"""Row level security of PostgreSQL: what init, plan and doctor say of it, and rows that it hides are no loss."""

import re

import pytest

from tests.etl.plain import printed
from tests.live.postgres import PASSWORD
from tests.project import Project, run_here

TENANT = "CREATE POLICY tenant ON ticket USING (tenant = current_setting('app.tenant', true))"
INDEX = '[[indexes]]\nname = "tickets"\nkey = "id"\n'
TABLE = 'table = "ticket"\ntext = "body"\n'
OWN_VIEW = "CREATE VIEW shown AS SELECT * FROM ticket"


class Tenants:
    """A database with tickets of two tenants, of which `reader` sees those of `a`."""

    def __init__(self, postgres, name, folder):
        self.server, self.name, self.reader = postgres, name, f"reader_{name}"
        self.run(f"CREATE ROLE {self.reader} LOGIN PASSWORD '{PASSWORD}'")
        self.run(f"ALTER ROLE {self.reader} SET app.tenant = 'a'")
        self.run("CREATE TABLE ticket (id int PRIMARY KEY, subject text, body text, tenant text)")
        self.run("CREATE TABLE reply (id int PRIMARY KEY, ticket int REFERENCES ticket, body text)")
        self.run(
            "INSERT INTO ticket SELECT n, 'Printer ' || n, 'The printer on floor ' || n || ' prints nothing but blank "
            "pages since Monday', CASE WHEN n > 2 THEN 'a' ELSE 'b' END FROM generate_series(1, 20) n"
        )
        self.run("INSERT INTO reply SELECT n, n, 'Switch it off and on' FROM generate_series(1, 20) n")
        self.run(
            f"GRANT USAGE ON SCHEMA public TO {self.reader}; ALTER TABLE ticket ENABLE ROW LEVEL SECURITY; {TENANT}"
        )
        self.run(f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {self.reader}")
        self.run(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {self.reader}")
        self.project = Project(folder)

    def run(self, statement):
        with self.server.connect(self.name) as connection:
            connection.execute(statement)

    def url(self, role=None):
        return self.server.url(self.name, role or self.reader).render_as_string(hide_password=False)

    def settings(self, index=TABLE, role=None):
        self.project.write_settings(f'project = "test"\n[source]\nurl = "{self.url(role)}"\n{INDEX}{index}')
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
    found = printed(tenants.project, "doctor", code=3)["findings"]
    assert found[0]["kind"] == "ignored_policies"
    tenants.project.config.unlink()
    out = run_here(tenants.project.config, "init", "--source", tenants.url("owner"))[0]
    assert re.search(f"^{said}", out, re.MULTILINE), out
    assert tenants.project.config.read_text().startswith("# Rights of the user of this database:\n# - ticket: searches")
    assert "to everybody" not in tenants.plan(TABLE + 'access = "tenant"\n', role="owner")


@pytest.mark.parametrize(
    ("index", "statement", "said"),
    [
        (TABLE, "SELECT", "{reader} sees only the rows of ticket that row level security shows (tenant)"),
        ('query = "SELECT id, body FROM reply r"\ntext = "body"\n', "ALTER TABLE reply ENABLE ROW LEVEL SECURITY",
         "row level security of reply shows no row to {reader}"),
        ('query = "SELECT id, body FROM shown"\ntext = "body"\n', OWN_VIEW, "to everybody: .*owner is a superuser"),
        ("query = \"SELECT id, body, E'it\\\\'s' AS x FROM shown WHERE body <> ''\"\ntext = \"body\"\n", OWN_VIEW,
         "to everybody: .*owner is a superuser"),
        ("query = \"SELECT id, body, $$it's$$ AS x FROM shown WHERE body <> ''\"\ntext = \"body\"\n", OWN_VIEW,
         "to everybody: .*owner is a superuser"),
        ('query = "SELECT id, body FROM ticket WHERE id IS DISTINCT FROM public.ticket.id + 1"\ntext = "body"\n',
         "SELECT", "{reader} sees only the rows of ticket"),
        ('table = "shown"\ntext = "body"\n', f"{OWN_VIEW}; ALTER VIEW shown SET (security_invoker = on)",
         "{reader} sees only the rows of ticket"),
        (TABLE, "ALTER ROLE {reader} BYPASSRLS", "{reader} has BYPASSRLS"),
        (TABLE, "ALTER TABLE ticket OWNER TO {reader}", "{reader} owns the table"),
        (TABLE, "ALTER TABLE ticket OWNER TO {reader}, FORCE ROW LEVEL SECURITY", "{reader} sees only"),
        ('table = "ticket"\n[[indexes.parts]]\ntable = "reply"\non = "ticket"\norder_by = "id"\ntext = ["body"]\n',
         "ALTER TABLE reply ENABLE ROW LEVEL SECURITY", "reply shows no row to {reader}"),
    ],
    ids=["table", "query", "view", "text", "dollars", "three parts", "invoker", "bypass", "owner", "forced", "part"],
)  # fmt: skip
def test_plan_says_who_reads_and_what_he_sees(tenants, index, statement, said):
    tenants.run(statement.format(reader=tenants.reader) if statement != "SELECT" else "SELECT 1")
    plan = tenants.plan(index)
    first, _, second = said.format(reader=tenants.reader).partition(".*")
    assert (first in plan, second in plan) == (True, True), plan


def test_a_reader_who_sees_no_row_is_told_why_and_not_that_the_table_is_empty(tenants):
    tenants.run(f"ALTER ROLE {tenants.reader} SET app.tenant = 'nobody'")
    tenants.project.config.unlink()
    said = run_here(tenants.project.config, "init", "--source", tenants.url(), "--exclude", "reply", code=2)[1]
    assert f"ticket: cannot be read: {tenants.reader} sees only the rows of ticket" in said
    assert "ticket: is empty" not in said


@pytest.mark.long
@pytest.mark.parametrize(
    "change",
    [
        "DROP POLICY tenant ON ticket", "ALTER POLICY tenant ON ticket USING (tenant = 'b')",
        "ALTER ROLE {reader} SET app.tenant = 'b'", "CREATE POLICY few ON ticket AS RESTRICTIVE USING (id < 6)",
    ],
)  # fmt: skip
def test_what_a_changed_policy_hides_is_held_back_and_what_is_deleted_later_is_not(tenants, change):
    project = tenants.settings()
    assert (project.run().state, len(project.texts("tickets"))) == ("completed", 18)
    tenants.run("DELETE FROM reply; DELETE FROM ticket WHERE id = 20")
    assert project.run().indexes[0].deleted == 1, "a deletion is no change of policies"
    tenants.run(change.format(reader=tenants.reader))
    assert "hold back" in run_here(project.config, "plan")[0]
    for run in (project.run("tickets", full=True), project.run()):
        assert "row level security, or the role that reads, changed since the last run" in run.indexes[0].message
    assert project.texts("tickets").keys() >= {str(n) for n in range(3, 20)}
    tenants.run(f"DROP POLICY IF EXISTS few ON ticket; DROP POLICY IF EXISTS tenant ON ticket; {TENANT}")
    tenants.run(f"ALTER ROLE {tenants.reader} SET app.tenant = 'a'; DELETE FROM ticket WHERE id = 19")
    project.run()
    assert project.run(allow_deletes=True).state == "completed"
    assert project.texts("tickets").keys() == {str(n) for n in range(3, 19)}


def test_another_reader_hides_rows_until_a_person_allows_that(tenants):
    assert tenants.settings(role="owner").run().state == "completed"
    project = tenants.settings()
    held = project.run().indexes[0]
    assert (held.deleted, held.state) == (0, "partial")
    assert len(project.texts("tickets")) == 20
    assert project.run(allow_deletes=True).indexes[0].deleted == 2
    assert project.run().indexes[0].message == ""
