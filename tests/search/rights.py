"""A database with policies of every kind, callers, and histories: what is answered beside what the
callers select."""

import json
import math
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rag_index.errors import DocumentNotFound, RagIndexError
from rag_index.search import Caller, Retriever
from rag_index.search.json_answers import DocumentAnswer, VerifiedAnswer
from tests.project import WORDS, Project

CHANGES = 30
"""Changes of rights between two runs."""
TENANTS, PEOPLE = ("north", "south", "east"), ("ann", "bo", "cy", "di")
CLAIMS = "current_setting('request.jwt.claims', true)::json"
POLICIES = (
    "tenant = current_setting('app.tenant', true)",
    f"owner = {CLAIMS} ->> 'sub'",
    (
        f"EXISTS (SELECT FROM membership m WHERE m.tenant = ticket.tenant AND m.person = {CLAIMS}"
        " ->> 'sub')"
    ),
    "opens < now()",
    "id % 2 = 0",
)
SETTINGS = """\
project = "rights"
[source]
url = "{url}"
caller_roles = ["{role}_a", "{role}_b", "{role}_gone"]
caller_settings = {{ "app.tenant" = "org.tenant" }}
[retrieve]
timeout = 30
"""
INDEX = """
[[indexes]]
name = "{name}"
key = "id"
text = ["title", "body"]
chunk_chars = 200
chunk_overlap = 20
{more}
"""
TICKETS = (
    'table = "ticket"\npayload = ["tenant"]\naccess = "database"\n[indexes.payload_indexes]\ntenant'
    ' = "keyword"\n'
)


@dataclass
class World:
    """Tickets of three tenants, of which policies show each caller some, and the index of them."""

    server: Any
    name: str
    project: Project
    answers: int = 0
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.role, self.indexed = f"r_{self.name}", set[int]()
        self.db = self.server.connect(self.name)
        for end in "ab":
            self.run(
                f"CREATE ROLE {self.role}_{end}; GRANT USAGE ON SCHEMA public TO {self.role}_{end}"
            )
            self.run(f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {self.role}_{end}")
        columns = (
            "id int PRIMARY KEY, title text, body text, tenant text, owner text, opens timestamptz"
        )
        self.run(f"CREATE TABLE ticket ({columns}); ALTER TABLE ticket ENABLE ROW LEVEL SECURITY")
        self.run("CREATE TABLE membership (tenant text, person text)")

    def close(self) -> None:
        for end in "ab":
            self.run(f"DROP OWNED BY {self.role}_{end} CASCADE; DROP ROLE {self.role}_{end}")
        self.db.close()

    def run(self, statement: str, *values: object) -> None:
        self.db.execute(statement, values or None)

    def add(self, chance: random.Random, first: int, count: int) -> None:
        for number in range(first, first + count):
            words = " ".join(chance.choices(WORDS, k=chance.randint(5, 60)))
            opens = chance.choice(["2001-01-01", "2999-01-01"])
            self.run(
                "INSERT INTO ticket VALUES (%s, %s, %s, %s, %s, %s)",
                number,
                f"Ticket {chance.choice(WORDS)}",
                f"{mark(number)} {words}",
                chance.choice(TENANTS),
                chance.choice(PEOPLE),
                opens,
            )

    def settings(self, indexes: str = INDEX.format(name="tickets", more=TICKETS)) -> Project:
        url = self.server.url(self.name).render_as_string(hide_password=False)
        self.project.write_settings(SETTINGS.format(url=url, role=self.role) + indexes)
        return self.project

    @contextmanager
    def as_caller(self, caller: Caller) -> Iterator[None]:
        """Let the statements of the block be those of the caller."""
        with self.db.transaction(force_rollback=True):
            self.run("SELECT set_config('request.jwt.claims', %s, true)", json.dumps(caller.claims))
            self.run("SELECT set_config('app.tenant', %s, true)", caller.claims["org"]["tenant"])
            self.run(f"SET LOCAL ROLE {caller.role}")
            yield

    def seen(self, caller: Caller) -> set[int]:
        """Return the tickets that a caller selects."""
        with self.as_caller(caller):
            return {number for (number,) in self.db.execute("SELECT id FROM ticket")}

    def caller(self, chance: random.Random) -> Caller:
        claims = {"sub": chance.choice(PEOPLE), "org": {"tenant": chance.choice(TENANTS)}}
        return Caller("", frozenset(), f"{self.role}_{chance.choice('ab')}", claims)

    def change(self, chance: random.Random) -> None:
        """Change rights: policies, rows or memberships. A connection may be cut off, too."""
        rule, role = (
            chance.choice(POLICIES),
            chance.choice([f"{self.role}_a", f"{self.role}_b", "public"]),
        )
        kind, number = chance.choice(["", "AS RESTRICTIVE"]), chance.randint(1, 300)
        statements = {
            "policy": (
                f"CREATE POLICY p{chance.randrange(10**9)} ON ticket {kind} FOR SELECT TO {role}"
                f" USING ({rule})"
            ),
            "none": (
                "DO $$ DECLARE p text; BEGIN FOR p IN SELECT polname FROM pg_policy WHERE random()"
                " < 0.4 LOOP EXECUTE format('DROP POLICY %I ON ticket', p); END LOOP; END $$"
            ),
            "tenant": (
                f"UPDATE ticket SET tenant = '{chance.choice(TENANTS)}' WHERE id % 7 = {number % 7}"
            ),
            "owner": (
                f"UPDATE ticket SET owner = '{chance.choice(PEOPLE)}' WHERE id % 5 = {number % 5}"
            ),
            "time": f"UPDATE ticket SET opens = now() + '1 h' WHERE id % 9 = {number % 9}",
            "member": (
                f"INSERT INTO membership VALUES ('{chance.choice(TENANTS)}',"
                f" '{chance.choice(PEOPLE)}')"
            ),
            "leave": f"DELETE FROM membership WHERE person = '{chance.choice(PEOPLE)}'",
            "delete": f"DELETE FROM ticket WHERE id = {number}",
            "cut": (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ),
        }
        self.run(chance.choice(list(statements.values())))

    def ask(self, retriever: Retriever, chance: random.Random, caller: Caller) -> None:
        """Ask something, and hold everything that is told against what the caller selects; note
        what differs."""
        seen, number = self.seen(caller), chance.randint(1, 300)
        query = " ".join(
            [
                *chance.choices(WORDS, k=chance.randint(1, 4)),
                chance.choice(["", mark(number), "printr"]),
            ]
        )
        told, key, kind = "", str(number), chance.random()
        try:
            if kind < 0.5:
                limit, weight = chance.choice([3, 10, 100]), chance.choice([None, 0.0, 1.0])
                result = retriever.search_sync(
                    query, groups=caller, limit=limit, dense_weight=weight
                )
                told = json.dumps(result.to_json(explain=True), default=str)
                found = {int(hit.document_id) for hit in result.hits}
                self.expect(found <= seen, f"{query!r} shows {sorted(found - seen)}")
                self.expect(
                    not (result.corrected or result.errors),
                    f"{query!r}: {result.corrected} {result.errors}",
                )
                indexed = seen & self.indexed
                self.expect(
                    len(found) == min(limit, len(indexed)),
                    f"{query!r}: {len(found)} of {len(indexed)} hits",
                )
            elif kind < 0.75:
                document = retriever.run(retriever.document("tickets", key, groups=caller))
                told = json.dumps(DocumentAnswer.model_validate(document).to_json())
                self.expect(number in seen, f"document {number} is shown")
            elif kind < 0.95:
                verified = retriever.verify_sync(f"tickets/{key}#0:{'0' * 16}", groups=caller)
                self.expect(verified.state == "unknown", f"{number}: {verified}")
                told = json.dumps(
                    {**VerifiedAnswer.model_validate(verified).to_json(), "citation": ""}
                )
            else:
                facets = retriever.run(retriever.facets(["tenant"], groups=caller))
                self.expect(not facets.fields, f"counts {facets.fields}")
        except DocumentNotFound:
            self.expect(number not in seen & self.indexed, f"document {number} is not shown")
        except RagIndexError as error:
            self.wrong.append(repr(error))
        for one in set(range(1, 301)) - seen:
            self.expect(mark(one) not in told, f"{query!r} tells a word of {one}")
        self.answers += 1

    def index(self) -> None:
        assert self.project.run().state in ("completed", "partial")
        self.indexed = set(map(int, self.project.texts("tickets")))

    def expect(self, right: bool, said: str) -> None:
        if not right:
            self.wrong.append(said)


def mark(number: int) -> str:
    """Return a word that one ticket alone has."""
    return f"zq{number:04}x"


def live_through(
    world: World, chance: random.Random, answers: int, until: float = math.inf
) -> None:
    """Ask and change rights in turn; index now and then, and sometimes less than what changed."""
    world.add(chance, 1, 120)
    world.settings()
    for rule in POLICIES[:3]:
        world.run(f"CREATE POLICY p{chance.randrange(10**9)} ON ticket FOR SELECT USING ({rule})")
    for number in range(121, 301):
        world.index()
        with Retriever.from_settings(world.project.config) as retriever:
            for _ in range(CHANGES):
                caller = world.caller(chance)
                for _ in range(chance.randint(1, 5)):
                    world.ask(retriever, chance, caller)
                if world.answers >= answers or world.wrong or time.monotonic() > until:
                    return
                world.change(chance)
        world.add(chance, number, 1)
