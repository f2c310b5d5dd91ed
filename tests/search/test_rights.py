"""Rights that the database decides: every answer is held against what the same caller selects
there."""

import asyncio
import json
import random
import re
from dataclasses import replace

import httpx
import pytest

from rag_index.components.sources.policies import RowRights
from rag_index.errors import DocumentNotFound, RagIndexError, SettingsError
from rag_index.search import ALL_GROUPS, Caller, Retriever
from rag_index.search.service.tokens import token_line
from tests.project import WORDS, Project, run_here
from tests.search.desk import agent
from tests.search.rights import INDEX, POLICIES, TICKETS, World, live_through, mark
from tests.search.service.live import Live

ANSWERS = 60
IDLE = "WHERE datname = '{name}' AND state = 'idle' AND query LIKE 'ROLLBACK%'"
FAULTS = {
    "refused": "REVOKE SELECT ON ticket FROM {role}",
    "one column": (
        "REVOKE SELECT ON ticket FROM {role}; GRANT SELECT (id, tenant, title) ON ticket TO {role}"
    ),
    "telling policy": "CREATE POLICY t ON ticket AS RESTRICTIVE USING (body::int > 0)",
    "endless policy": "CREATE POLICY t ON ticket AS RESTRICTIVE USING (pg_sleep(60) IS NOT NULL)",
    "no table": "ALTER TABLE ticket RENAME TO other",
    "no database": (
        "ALTER DATABASE {name} ALLOW_CONNECTIONS false; "
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity {IDLE}"
    ),
}
WHOLE = "SELECT t.*, r.body AS said FROM ticket t LEFT JOIN reply r ON r.ticket = t.id"
PART = '[[indexes.parts]]\ntable = "reply"\non = "ticket"\norder_by = "id"\ntext = ["body"]\n'


@pytest.fixture
def world(postgres, tmp_path):
    with postgres.database() as name:
        made = World(postgres, name, Project(tmp_path / "project"))
        yield made
        made.close()


@pytest.mark.long
def test_no_answer_tells_more_than_the_caller_selects(world):
    live_through(world, random.Random(50), ANSWERS)
    assert world.wrong == []
    assert world.answers >= ANSWERS


@pytest.mark.long
def test_ten_hits_are_those_of_an_index_of_his_own(world):
    chance = random.Random(7)
    world.add(chance, 1, 300)
    world.run(f"CREATE POLICY mine ON ticket FOR SELECT USING ({POLICIES[0]} OR {POLICIES[1]})")
    callers = [world.caller(chance) for _ in range(3)]
    own = [
        INDEX.format(
            name=f"own{number}", more=TICKETS.replace("\n", f"\nwhere = 'id IN ({ids})'\n", 1)
        )
        for number, caller in enumerate(callers)
        for ids in [", ".join(map(str, world.seen(caller)))]
    ]
    world.settings("".join([INDEX.format(name="tickets", more=TICKETS), *own]))
    world.index()
    asked = equal = 0
    with Retriever.from_settings(world.project.config) as retriever:
        for number, caller in enumerate(callers * 6):
            query = " ".join(chance.choices(WORDS, k=chance.randint(1, 5)))
            found = [
                [
                    (hit.document_id, round(hit.score, 4), round(hit.relevance, 4))
                    for hit in retriever.search_sync(query, indexes=[index], groups=caller).hits
                ]
                for index in ("tickets", f"own{number % 3}")
            ]
            asked, equal = asked + 1, equal + (found[0] == found[1])
        world.run("ALTER POLICY mine ON ticket USING (id % 100 = 7)")
        few = retriever.search_sync("printer", indexes=["tickets"], groups=callers[0]).hits
    assert equal >= 0.99 * asked, (equal, asked)
    assert {hit.document_id for hit in few} == {
        "7",
        "107",
        "207",
    }, "candidates follow until nothing is left"


@pytest.fixture
def shown(world):
    """A world in which everybody sees the tickets of his tenant, and an index of members without
    any rights."""
    world.add(random.Random(3), 1, 30)
    world.run(f"CREATE POLICY mine ON ticket FOR SELECT USING ({POLICIES[0]})")
    world.run("INSERT INTO membership VALUES ('north', 'ann')")
    plain = '[[indexes]]\nname = "members"\ntable = "membership"\nkey = "person"\ntext = "tenant"\n'
    world.settings(INDEX.format(name="tickets", more=TICKETS) + plain)
    world.index()
    return world


def north(world: World, **other: object) -> Caller:
    return replace(
        Caller("", frozenset(), f"{world.role}_a", {"sub": "ann", "org": {"tenant": "north"}}),
        **other,
    )


async def at_once(*asked):
    return await asyncio.gather(*asked, return_exceptions=True)


@pytest.mark.long
@pytest.mark.parametrize("fault", [*FAULTS, "caller"])
def test_whoever_cannot_be_checked_gets_nothing(shown, fault, caplog):
    callers = [north(shown)]
    if fault == "caller":
        callers = [
            north(shown, role=role) for role in (f"{shown.role}_gone", "pg_monitor", "owner")
        ]
        callers.append(north(shown, claims={}))
    if fault == "endless policy":
        config = shown.project.config
        config.write_text(config.read_text().replace("timeout = 30", "timeout = 3"))
    with Retriever.from_settings(shown.project.config) as retriever:
        key = (
            retriever.search_sync("printer", indexes=["tickets"], groups=north(shown))
            .hits[0]
            .document_id
        )
        if fault in FAULTS:
            with shown.server.connect(
                "postgres" if fault == "no database" else shown.name
            ) as connection:
                connection.execute(FAULTS[fault].format(role=callers[0].role, name=shown.name))
        for caller in callers:
            result = retriever.search_sync("printer", groups=caller)
            assert {hit.index for hit in result.hits} == {"members"}
            assert list(result.errors) == ["tickets"]
            told = json.dumps(result.to_json(explain=True), default=str)
            errors = retriever.run(
                at_once(
                    retriever.search("printer", groups=caller, indexes=["tickets"]),
                    retriever.document("tickets", key, groups=caller),
                    retriever.verify(f"tickets/{key}#0:{'0' * 16}", groups=caller),
                )
            )
            assert [isinstance(one, RagIndexError) for one in errors] == [True] * 3, errors
            told += repr(errors)
            assert not re.search(r"zq\d{4}x|permission|ticket |does not exist", told), told
    assert not re.search(r"zq\d{4}x", caplog.text), "the log says why, without the text of a row"
    with shown.server.connect() as connection:
        connection.execute(f"ALTER DATABASE {shown.name} ALLOW_CONNECTIONS true")


@pytest.mark.parametrize("tenant", ["north", "south"])
def test_the_required_filter_of_an_index_holds_also_where_the_database_says_who_may_see_it(
    shown, tenant
):
    required = TICKETS.replace("access", f'required_filter = {{ tenant = "{tenant}" }}\naccess')
    shown.settings(INDEX.format(name="tickets", more=required))
    seen = shown.seen(north(shown))
    expected = (
        seen if tenant == "north" else set()
    )  # the database shows him the tickets of the north
    with Retriever.from_settings(shown.project.config) as retriever:
        hits = retriever.search_sync(
            "printer", indexes=["tickets"], groups=north(shown), limit=100
        ).hits
        assert {int(hit.document_id) for hit in hits} == expected
        for number in sorted(seen)[:3]:
            ask = retriever.document("tickets", str(number), groups=north(shown))
            [found] = retriever.run(at_once(ask))
            assert isinstance(found, DocumentNotFound) == (tenant == "south"), found


def test_who_has_no_role_gets_nothing_and_who_may_see_all_gets_all(shown):
    with Retriever.from_settings(shown.project.config) as retriever:
        for groups in (None, ["north"], Caller(claims={"org": {"tenant": "north"}})):
            result = retriever.search_sync("printer", groups=groups)
            assert ({hit.index for hit in result.hits}, dict(result.errors)) == ({"members"}, {})
        found = retriever.search_sync("printer", indexes=["tickets"], limit=100, groups=ALL_GROUPS)
    assert len(found.hits) == 30
    shown.project.config.write_text(
        shown.project.config.read_text().replace('access = "database"\n', "")
    )
    with Retriever.from_settings(shown.project.config) as retriever:
        assert not retriever.search_sync("printer", indexes=["tickets"], groups=["everybody"]).hits
        with pytest.raises(RagIndexError, match="says who"):
            retriever.search_sync("printer", indexes=["tickets"])


@pytest.mark.long
@pytest.mark.parametrize(
    "more",
    [
        f'table = "ticket"\n{PART}',
        (
            'table = "ticket"\npayload = ["reply.body"]\n[indexes.joins.reply]\ntable = "reply"\non'
            ' = {ticket = "id"}\n'
        ),
        f'query = "{WHOLE}"\npayload = ["said"]\n',
        'table = "whole"\npayload = ["said"]\n',
        'table = "whole"\nnewest = "opens"\n',
    ],
    ids=["part", "join", "query", "view", "newest"],
)
def test_a_document_of_which_something_is_hidden_is_not_shown(world, more):
    world.add(random.Random(3), 1, 9)
    world.run("CREATE POLICY all_rows ON ticket USING (true); UPDATE ticket SET opens = now()")
    world.run("CREATE TABLE reply (id int PRIMARY KEY, ticket int, body text)")
    world.run("INSERT INTO reply SELECT n, n, 'Switch it off' FROM generate_series(2, 9) n")
    world.run(
        "ALTER TABLE reply ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON reply USING (id % 2"
        " = 0)"
    )
    world.run(f"CREATE VIEW whole WITH (security_invoker) AS {WHOLE}")
    if "newest" in more:  # an older version of it is all that is seen
        more = more.replace("whole", "ticket")
        world.run("ALTER TABLE ticket DROP CONSTRAINT ticket_pkey")
        world.run("ALTER POLICY all_rows ON ticket USING (opens < now())")
        newer = "id, title, 'new', tenant, owner, now() + '1 h'"
        world.run(f"INSERT INTO ticket SELECT {newer} FROM ticket WHERE id IN (3, 5, 7, 9)")
    table, _, rest = more.partition("\n")
    world.settings(INDEX.format(name="tickets", more=f'{table}\naccess = "database"\n{rest}'))
    world.index()
    with Retriever.from_settings(world.project.config) as retriever:
        found = retriever.search_sync("printer", limit=100, groups=north(world))
    assert {hit.document_id for hit in found.hits} == set("12468")


def test_every_way_to_ask_is_answered_for_the_role_of_its_token(shown):
    seen = shown.seen(north(shown))
    hidden, line = min(shown.indexed - seen), token_line("ann", "rag_secret", [], f"{shown.role}_b")
    shown.run(
        f"ALTER POLICY mine ON ticket USING (tenant = 'north' AND {POLICIES[1]} OR {POLICIES[1]} IS"
        " NULL)"
    )
    text = shown.project.config.read_text().replace(
        'caller_settings = { "app.tenant" = "org.tenant" }\n', ""
    )
    shown.project.config.write_text(
        text.replace("[retrieve]", f'[serve]\ntokens = ["{line}"]\n[retrieve]')
    )
    seen = {
        number
        for (number,) in shown.db.execute(
            "SELECT id FROM ticket WHERE tenant = 'north' AND owner = 'ann'"
        )
    }
    caller = Caller("ann", frozenset(), f"{shown.role}_b", {"sub": "ann"})
    with (
        Live(shown.project.settings) as live,
        httpx.Client(
            base_url=live.url, headers={"Authorization": "Bearer rag_secret"}, timeout=60
        ) as client,
    ):
        hits = client.post(
            "/search",
            json={"query": f"printer {mark(hidden)}", "limit": 100, "indexes": ["tickets"]},
        )
        assert {int(hit["document_id"]) for hit in hits.json()["hits"]} == seen
        assert client.get(f"/documents/tickets/{hidden}").status_code == 404
        assert client.get(f"/documents/tickets/{min(seen)}").status_code == 200
        facets = client.post("/facets", json={"fields": ["tenant"]}).json()
        assert (facets["fields"], list(facets["errors"])) == ({}, ["tickets"])
        cited = {"citations": [f"tickets/{one}#0:{'0' * 16}" for one in (hidden, 9999)]}
        assert [one["state"] for one in client.post("/verify", json=cited).json()["citations"]] == [
            "unknown"
        ] * 2
        told = [one for one in client.get("/indexes").json()["indexes"] if one["name"] == "tickets"]
        assert [(one["documents"], one["closed"]) for one in told] == [(None, False)]
        call = agent(shown.project.settings, live.retriever, caller)
        for tool, given in (
            ("search", {"query": mark(hidden)}),
            ("verify_citations", cited),
            ("list_indexes", {}),
        ):
            assert mark(hidden) not in call(tool, **given)
    out, _ = run_here(
        shown.project.config,
        "search",
        "printer",
        "--index",
        "tickets",
        "--limit",
        "100",
        "--json",
        "--explain",
        "--role",
        caller.role,
        "--claim",
        "sub=ann",
    )
    assert {int(hit["document_id"]) for hit in json.loads(out)["hits"]} == seen
    assert json.loads(out)["timings_ms"]["access"] > 0
    run_here(
        shown.project.config,
        "verify",
        f"tickets/{hidden}#0:{'0' * 16}",
        "--role",
        caller.role,
        code=3,
    )


@pytest.mark.long
def test_the_database_is_asked_for_as_many_documents_whatever_words_hidden_ones_have(
    world, monkeypatch
):
    world.run(
        "INSERT INTO ticket SELECT n, 'Ticket', 'The ' || (ARRAY['printer','mail','disk'])[1 + n %"
        " 3] || ' of room ' || n || CASE WHEN n % 7 = 0 THEN ' has a zqzq7x' ELSE '' END, 'north',"
        " 'ann', now() FROM generate_series(1, 1400) n"
    )
    world.run("CREATE POLICY mine ON ticket FOR SELECT USING (id % 7 <> 0)")
    world.settings(INDEX.format(name="tickets", more=TICKETS))
    world.index()
    asked, permitted = [], RowRights.permitted

    def counted(self, index, role, settings, keys, seconds):
        asked.append(len(keys))
        return permitted(self, index, role, settings, keys, seconds)

    monkeypatch.setattr(RowRights, "permitted", counted)
    with Retriever.from_settings(world.project.config) as retriever:

        def told(query):
            asked.clear()
            found = retriever.search_sync(query, indexes=["tickets"], groups=north(world))
            return list(asked), len(found.hits)

        assert told("printer room") == ([200], 10)
        # Candidates of a phrase are all requested at once: 2,000, of which there are 1,400.
        assert told('"printer" room') == ([1400], 10)
        # Far from 50 of 150, which are enough: equal texts come in any order, so 2/7 are enough or
        # not by chance.
        for rule in ("id % 7 <> 0", "id % 7 IN (1, 2, 3, 4)"):
            world.run(f"ALTER POLICY mine ON ticket USING ({rule})")
            for query in ("printer {}", "{} mail disk", '"printer" {}', '"{}"', "printer -{}"):
                assert told(query.format("zqzq7x")) == told(query.format("zqzq8x")), (
                    "the second is in no document"
                )


def test_settings_that_could_show_everything_are_refused(world):
    for wrong, said in (
        ('caller_roles = ["none"]', "is no role"),
        ("", "needs \\[source\\] caller_roles"),
        ('caller_roles = ["a"]\ncaller_settings = { role = "sub" }', "caller_settings"),
    ):
        url = world.server.url(world.name).render_as_string(hide_password=False)
        world.project.write_settings(
            f'[source]\nurl = "{url}"\n{wrong}\n' + INDEX.format(name="tickets", more=TICKETS)
        )
        with pytest.raises(SettingsError, match=said):
            _ = world.project.settings


def test_a_schema_of_the_role_does_not_stand_in_for_the_table(shown):
    role, seen = f"{shown.role}_a", shown.seen(north(shown))
    shown.run(
        f"CREATE SCHEMA {role} AUTHORIZATION {role}; CREATE TABLE {role}.ticket AS TABLE ticket"
    )
    shown.run(f"GRANT SELECT ON {role}.ticket TO {role}")
    with Retriever.from_settings(shown.project.config) as retriever:
        found = retriever.search_sync(
            "printer", indexes=["tickets"], limit=100, groups=north(shown)
        )
    assert {int(hit.document_id) for hit in found.hits} == seen
