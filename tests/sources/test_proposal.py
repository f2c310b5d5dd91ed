"""Rules by which `init` proposes indexes: what belongs together, and what nobody may be shown."""

from __future__ import annotations

from hashlib import sha1

import pytest
import sqlalchemy as sa

from rag_index.settings import Settings
from rag_index.sources import open_source
from rag_index.sources.columns import singular
from rag_index.sources.scaffold import propose_indexes

PROSE = "The pump behind the mill stopped when the water froze, and nobody noticed it before the bakers came to work"
TEXT = f"{PROSE} {{n}}"
PAST, FUTURE = 1_600_000_000, 4_000_000_000
DAY = "2024-01-01 00:00:00"


@pytest.fixture
def propose(tmp_path):
    """A function that fills tables, given as columns and rows, and returns the proposal."""
    url = sa.make_url(f"sqlite:///{tmp_path}/source.db")

    def made(tables, **options):
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            for name, (columns, rows) in tables.items():
                connection.exec_driver_sql(f'CREATE TABLE "{name}" ({columns})')
                for row in rows:
                    connection.exec_driver_sql(f'INSERT INTO "{name}" VALUES ({", ".join("?" * len(row))})', tuple(row))
        engine.dispose()
        return propose_indexes(url, **options)

    made.url = url
    return made


def many(count, key="id", /, *, kinds=None, **columns):
    """Return a table with rows numbered from 1.

    A column has texts with the number `{n}`, a function of it, or one value. `kinds` are types in SQL, for columns that
    have another one than their values.
    """

    def value(given, n):
        return given(n) if callable(given) else given.format(n=n) if isinstance(given, str) else given

    rows = [(n, *[value(given, n) for given in columns.values()]) for n in range(1, count + 1)]
    types = {name: "INTEGER" if isinstance(value(given, 1), int) else "TEXT" for name, given in columns.items()}
    types |= {key: "INTEGER PRIMARY KEY"} | (kinds or {})
    return ", ".join(f'"{name}" {types[name]}' for name in (key, *columns)), rows


def itself(n):
    return n


def cycle(length):
    """Return a function with a number from 1 to `length` for each row."""
    return lambda n: n % length + 1


def names(*called, key="id", name="name"):
    """Return a table with a name for each row."""
    return many(len(called), key, **{name: lambda n: called[n - 1]})


def pages(extra="x INTEGER", values=(0,), count=12):
    """Return a table of pages with a column that has these values, and then nothing but the last one."""
    columns, rows = many(count, title="Page {n} of the mill", body=TEXT)
    return f"{columns}, {extra}", [(*row, values[min(row[0], len(values)) - 1]) for row in rows]


def index(proposal, table):
    return next(one for one in proposal.indexes if one.tables[0] == table).settings


def parts(proposal, table):
    return [part["table"] for part in index(proposal, table).get("parts", ())]


def documents(propose, proposal, table):
    """Return the documents that the proposed settings give: their texts by key."""
    made = Settings(source={"url": str(propose.url)}, indexes=[{"name": "one", **index(proposal, table)}])
    source = open_source(made, made.indexes[0])
    try:
        found = source.page(None, 500).documents
    finally:
        source.close()
    return dict(zip(found.keys, found.texts, strict=True))


def shown(propose, proposal, table):
    return documents(propose, proposal, table).keys()


def keys(count, without=()):
    return {str(n) for n in range(1, count + 1)} - set(without)


@pytest.mark.parametrize(
    ("plural", "noun"),
    [("cases", "case"), ("statuses", "status"), ("wikis", "wiki"), ("warehouses", "warehouse"), ("boxes", "box"),
     ("entries", "entry"), ("analysis", "analysis"), ("branches", "branch"), ("addresses", "address")],
)  # fmt: skip
def test_nouns_are_compared_in_the_singular(plural, noun):
    assert singular(plural) == noun


def test_numbers_that_two_tables_have_by_chance_make_no_relation(propose):
    made = propose(
        {
            "visit": many(30, "visit_id", visit_type=cycle(3), title="Visit {n} of the mill", report=TEXT),
            "visit_type": many(3, "visit_type_id", name="Visit no. {n} at least", description=PROSE),
            "gate": many(30, name="Gate no. {n} of the mill", description=TEXT),
        }
    )
    visit = index(made, "visit")
    assert "parts" not in visit
    assert visit["joins"]["visit_type_2"]["table"] == "visit_type"
    assert "joins" not in index(made, "gate")


def test_an_id_may_be_written_together_with_its_noun_and_a_flag_is_none(propose):
    made = propose(
        {
            "entries": pages("maker TEXT", ["ACME"]),
            "entry_remarks": many(30, entryid=cycle(12), body=TEXT, latest=lambda n: n % 2),
            "entry_versions": many(30, entryid=cycle(12), content=TEXT),
        }
    )
    (part,) = index(made, "entries")["parts"]
    assert (part["table"], part["on"]) == ("entry_remarks", "entryid")
    assert made.left_out["entry_versions"] == "holds older versions of rows"


def test_random_ids_are_no_secrets_and_no_order(propose):
    ids = [f"q7w{n:02d}e9r8t1y5u3i2o6p4a7s" for n in range(13)]
    remarks = [(ids[n], ids[13 - n], f"Said: {PROSE} {n}", n) for n in range(1, 13)]
    made = propose(
        {
            "pages": ("id TEXT PRIMARY KEY, title TEXT, body TEXT",
                      [(ids[n], f"Page {n} of the mill", f"{PROSE} {n}") for n in range(1, 13)]),
            "remarks": ("id TEXT PRIMARY KEY, page_id TEXT, body TEXT, create_at INTEGER", remarks),
        }
    )  # fmt: skip
    assert (made.secrets, index(made, "pages")["key"]) == ({}, "id")
    assert index(made, "pages")["parts"][0]["order_by"] == ["create_at", "id"]


def test_of_two_tables_of_pages_the_one_called_like_the_remarks_has_them(propose):
    """Pages of a wiki without a name stay documents, though few and short, and though it might have a text one day."""
    made = propose(
        {
            "pages": pages("maker TEXT", ["ACME"], count=23),
            "wikis": many(3, description=None),
            "wiki_pages": many(25, title="Page {n} of the mill", body="Words about it {n}", wikiid=cycle(3)),
            "wiki_versions": many(50, pageid=cycle(25), content="Words {n}"),
            "wiki_remarks": many(50, pageid=cycle(25), body=TEXT),
        }
    )
    assert (parts(made, "pages"), parts(made, "wiki_pages")) == ([], ["wiki_remarks"])


def test_versions_do_not_make_a_container_of_what_they_are_of(propose):
    made = propose(
        {
            "pages": many(12, title="Page {n} of the mill", body="Words about it {n}"),
            "page_versions": many(24, page_id=cycle(12), content="Words {n}"),
        }
    )
    assert len(shown(propose, made, "pages")) == 12


def test_a_part_whose_document_is_left_out_becomes_a_document(propose):
    ticket = many(12, subject="The mill is silent {n}")
    made = propose({"ticket": ticket, "remark": many(30, ticket_id=cycle(12), body=TEXT)}, include=["remark"])
    assert [one.tables[0] for one in made.indexes] == ["remark"]
    assert made.left_out["ticket"] == "is not included"


@pytest.mark.parametrize("project_id", [2, 0, None])
def test_rows_are_hidden_with_what_contains_them_if_each_names_one(propose, project_id):
    """0 names no row: such rows would be lost."""
    titles = ("Mill", "Secret weir", "Lock")
    made = propose(
        {
            "projects": many(3, name=lambda n: titles[n - 1], is_public=lambda n: int(n != 2)),
            "wikis": many(3, project_id=itself),
            "wiki_pages": many(30, title="Page {n} of the mill", body=TEXT, wiki_id=cycle(3)),
            "members": many(3, project_id=itself),
            "tickets": many(30, subject="Ticket {n} of the mill", body=TEXT,
                            project_id=lambda n: n % 3 + 1 if n > 1 else project_id, kinds={"project_id": "INTEGER"}),
        }
    )  # fmt: skip
    public = keys(30, [str(n) for n in range(1, 31, 3)])
    assert shown(propose, made, "wiki_pages") == public
    assert shown(propose, made, "tickets") == (public if project_id else keys(30))


def test_a_label_comes_with_its_value_unless_the_link_is_deleted(propose):
    values = many(12, device_id=itself, field_id=cycle(2), value="v{n}", deleted=lambda n: int(n == 4))
    made = propose(
        {"devices": pages("maker TEXT", ["ACME"]), "fields": names("Colour", "Voltage"), "field_values": values}
    )
    (part,) = index(made, "devices")["parts"]
    assert part["text"] == "{fields.name}: {value}"
    assert part["where"] == "COALESCE(deleted, 0) = 0"


@pytest.mark.parametrize(
    ("column", "values", "hidden"),
    [
        ("visibility_level INTEGER", [0, 10, 20], {1}),
        ("status TEXT", ["published_private", "published"], {1}),
        ("status TEXT", ["team_private", "shared"], {1}),
        ("status INTEGER", [9, 5, 1], {1}),
        ("status INTEGER", [9, 8, 1], set()),
        ("state INTEGER", [-2, 1], {1}),
        ("starttime INTEGER NOT NULL", [FUTURE, PAST, 0], {1}),
        ("endtime INTEGER NOT NULL", [PAST, FUTURE, 0], {1}),
        ("start_time INTEGER NOT NULL", [FUTURE], set()),
        ("end_time INTEGER NOT NULL", [40, 0], set()),
        ("start_time INTEGER, end_time INTEGER AS (CASE id WHEN 1 THEN 1500000000 ELSE 0 END)", [PAST], set()),
        ("privatereplyto INTEGER NOT NULL", [7, 0], {1}),
        ("type TEXT NOT NULL", ["P", "D", "P", "D", "O"], {1, 2, 3, 4}),
        ("publish_up DATETIME", ["2099-01-01 00:00:00", "2020-01-01 00:00:00", None], {1}),
        ("published_until DATETIME", ["2020-01-01 00:00:00", "2080-01-01 00:00:00", None], {1}),
        ("valid_to DATETIME", ["2020-01-01 00:00:00", "9999-12-31 00:00:00"], {1}),
        ("start_date DATETIME", ["2099-01-01 00:00:00", None], set()),
        ("begin_date DATETIME, end_date DATETIME AS (NULL)", ["2099-01-01 00:00:00", None], {1}),
        ("fe_group TEXT NOT NULL", ["2", "", "0"], {1}),
        ("user_group INTEGER NOT NULL", [0, 3, 2], set()),
        ("read INTEGER NOT NULL", [1, 0], set()),
        ("personal INTEGER NOT NULL", [1, 0], {1}),
        ("activity INTEGER", [0, 1], {1}),
        ("activity INTEGER", [2, 3, 0, 1], set()),
        ("added_erroneously INTEGER", [1, 0], {1}),
        ("verification TEXT", ["entered-in-error", "unconfirmed", "confirmed"], {1}),
        ("visibility TEXT", ["Private", "Public", "all"], {1}),
        ("sensitivity TEXT", ["high", "normal"], {1}),
        ("is_public INTEGER, is_private INTEGER AS (id = 4)", [0, 0, 1, 0], {4}),  # the former has a public address
        ("visibility INTEGER", [2, 0], {1}),
        ("category TEXT", ["private", "workspace"], {1}),
        # of what has an address, most rows are out
        ("status INTEGER, slug TEXT AS ('wheel-' || id)", [0, 1, 2, 1], {1, 3}),
        ("state INTEGER, alias TEXT AS ('wheel-' || id)", [0, 1, 2, 1], {1, 3}),
        ("status INTEGER, editor TEXT AS ('wheel-' || id)", [0, 1, 2, 1], set()),
        ("ranking INTEGER, slug TEXT AS ('wheel-' || id)", [0, 1, 2, 1], set()),
    ],
)
def test_rows_that_may_not_be_shown_are_no_documents(propose, column, values, hidden):
    made = propose({"pages": pages(column, values)})
    assert shown(propose, made, "pages") == keys(12, map(str, hidden))


@pytest.mark.parametrize(("kind", "key"), [("itemtype", "items_id"), ("object_type", "object_id")])
def test_remarks_belong_to_what_their_type_and_id_say(propose, kind, key):
    said = {kind: lambda n: ["Page", "Machine"][n % 2], key: cycle(9), "content": f"{PROSE} in hour {{n}}"}
    made = propose({"w_pages": pages(), "w_remarks": many(40, **said), "w_machines": many(11, name="Wheel {n}")})
    (part,) = index(made, "w_pages")["parts"]
    assert (part["table"], part["on"], part["where"]) == ("w_remarks", key, f"{kind} = 'Page'")


def test_tags_belong_to_what_a_row_of_another_table_says_and_an_id(propose):
    """The number of a page is that of a machine, too: the type tells which is meant, by the name of its row."""
    types = "id INTEGER PRIMARY KEY, app_label TEXT, model TEXT", [(3, "mill", "page"), (5, "mill", "machine")]
    links = many(
        40, tag_id=cycle(2), content_type_id=lambda n: [3, 5][n % 2], object_id=cycle(9),
        creator=1, created=DAY, changed=DAY, kinds={"created": "DATETIME", "changed": "DATETIME"},
    )  # fmt: skip
    tags = names("Water wheels", "Bakers at night")
    made = propose(
        {"mill_page": pages(), "mill_machine": pages(), "content_type": types, "tags": tags, "tag_links": links}
    )
    for table, number in (("mill_page", 3), ("mill_machine", 5)):
        (part,) = index(made, table)["parts"]
        assert (part["table"], part["on"]) == ("tag_links", "object_id")
        assert (part["where"], part["text"]) == (f"content_type_id = {number}", "{tags.name}")


def test_messages_of_conversations_between_persons_and_notes_of_one_are_left_out(propose):
    """Where a conversation is no conversation of messages, it may be one with customers."""
    messages = f"{PROSE} in hour {{n}}"
    made = propose(
        {
            "conversations": pages(),
            "message_conversations": many(12, title="Talk {n}", body="Hush! {n}"),
            "messages": many(36, message_conversation_id=cycle(12), fullmessage=messages),
            "replies": many(36, conversation_id=cycle(12), fullmessage=messages),
            "reminders": pages(),
        }
    )
    assert made.left_out["messages"] == "belongs to what few persons may see"
    assert made.left_out["reminders"] == "holds messages between persons, notes of one, or drafts"
    assert [one.tables[0] for one in made.indexes] == ["conversations"]


@pytest.mark.parametrize(
    ("places", "hides"),
    [([(n, 5, n, n != 3) for n in range(1, 13)], True),
     ([(n, 5, n % 6 + 1, n != 3) for n in range(1, 25)], False),
     ([(n, 5, n, n != 3) for n in range(1, 6)], False)],
    ids=["one for each", "several for one", "for few"],
)  # fmt: skip
def test_pages_are_hidden_by_the_row_that_places_each_of_them(propose, places, hides):
    others = [(n + 50, 4, n, n != 8) for n in range(1, 13)]
    columns = "id INTEGER PRIMARY KEY, module INTEGER, instance INTEGER, visible INTEGER NOT NULL"
    modules = "id INTEGER PRIMARY KEY, name TEXT", [(4, "book"), (5, "page")]
    tables = {"mdl_page": pages(), "mdl_book": pages(), "mdl_modules": modules}
    made = propose(tables | {"mdl_course_modules": (columns, places + others)})
    assert len(shown(propose, made, "mdl_page")) == (11 if hides else 12)
    assert "8" not in shown(propose, made, "mdl_book")


def test_pages_below_a_hidden_one_are_hidden_at_any_depth(propose):
    kinds = {"pid": "INTEGER NOT NULL", "hidden": "INTEGER NOT NULL"}
    tree = {"pid": lambda n: n - 1 if n > 5 else 0, "hidden": lambda n: int(n == 8)}
    made = propose({"pages": many(12, kinds=kinds, **tree, title="Page {n} of the mill", body=TEXT)})
    assert shown(propose, made, "pages") == set("1234567")


def test_a_table_of_which_all_rows_are_hidden_is_left_out(propose):
    made = propose({"memos": pages("personal INTEGER", [1], count=2), "pages": pages("hidden INTEGER", [0])})
    assert made.left_out["memos"] == "has no row that may be shown: personal says who may see a row"


def test_a_person_is_called_by_its_name_and_not_by_its_profession(propose):
    people = {"Title": lambda n: "Clerk" if n % 2 else "Head of sales", "Notes": TEXT}
    made = propose({"contacts": many(12, FirstName="Ann{n}", LastName="Miller{n}", **people)})
    assert index(made, "contacts")["title"] == "{FirstName} {LastName}"


@pytest.mark.parametrize(
    ("table", "name"), [("Aufträge", "auftrage"), ("订单", "ding-dan"), ("__x__y", "x-y"), ("#", "index")]
)
def test_an_index_is_called_like_its_table_in_letters_that_names_may_have(propose, table, name):
    [page] = propose({table: pages("note TEXT", [None])}).indexes
    assert page.name == name


def test_names_without_letters_are_names(propose):
    odd = {"%": lambda n: "ab"[n % 2], "!": itself, "title": "Page {n} of the mill", "body": TEXT}
    assert index(propose({"_": many(12, "#", **odd)}), "_")["key"] == "#"


def test_a_table_of_labels_may_begin_with_a_digit(propose):
    links = "page_id INTEGER, tag_id INTEGER, PRIMARY KEY (page_id, tag_id)", [(n, n % 2 + 1) for n in range(1, 13)]
    made = propose({"pages": pages(), "3d_tags": names("Water wheels", "Bakers"), "page_tags": links})
    assert [*index(made, "pages")["parts"][0]["joins"]] == ["label_3d_tags"]
    assert len(shown(propose, made, "pages")) == 12


@pytest.mark.parametrize(
    ("kind", "values"), [("INTEGER", [4, 3, 3, 1]), ("CHAR(1)", ["R", "N", "N", "M"])], ids=["numbers", "letters"]
)
def test_codes_that_may_hide_rows_are_said_if_nothing_tells_what_they_mean(propose, kind, values):
    """A whisper among staff is of type 4, and a closing note of type 3; nothing in the schema says which is which."""
    [page] = propose({"pages": pages(f"page_type {kind}", values, 1200)}).indexes
    assert "where" not in page.settings
    [said] = page.unclear
    assert said.startswith("pages: of ")
    assert f"page_type is {values[3]} in " in said
    assert f", {values[1]} in 2, {values[0]} in 1. If some" in said


@pytest.mark.parametrize(
    ("column", "values"),
    [("page_type INTEGER", [1]), ("page_state INTEGER", [9, 1]), ("priority INTEGER", [1, 2]),
     ("page_type TEXT", ["post", "page"])],
    ids=["one value", "put away", "another name", "words"],
)  # fmt: skip
def test_what_is_known_or_hides_nothing_is_not_said(propose, column, values):
    [page] = propose({"pages": pages(column, values)}).indexes
    assert page.unclear == []


def test_why_a_row_was_hidden_is_not_shown(propose):
    made = propose({"pages": pages("delete_reason TEXT", ["It names a man in the village", "It insults the miller"])})
    assert made.personal == {"pages": ["delete_reason"]}
    assert "delete_reason" not in str(index(made, "pages"))


@pytest.mark.parametrize("kind", ["INTEGER", "TEXT"])
@pytest.mark.parametrize("title", ["title", "flag"])
def test_replies_are_parts_of_what_they_answer(propose, kind, title):
    """A page below another one has a title of its own and stays a document; so do replies that may have replies."""

    def table(above, called="Re: Message {}", column="root_id"):
        called_so = [n if kind == "INTEGER" else f"no{n}" for n in range(13)]
        rows = [
            (
                called_so[n],
                (called if above(n) else "Message {}").format(above(n) or n) if title == "title" else None,
                f"{PROSE} {n}",
                called_so[above(n)] if above(n) else {"TEXT": ""}.get(kind),
            )
            for n in range(1, 13)
        ]
        return f"id {kind} PRIMARY KEY, {title} TEXT, body TEXT, {column} {kind}", rows

    def is_reply(n):
        return max(0, n - 6)

    others = {"chain": table(lambda n: n - 1), "tree": table(is_reply, column="parent_id")}
    made = propose({"posts": table(is_reply), "pages": table(is_reply, "On mill {}"), **others})
    assert len(shown(propose, made, "posts")) == 6
    (part,) = index(made, "posts")["parts"]
    assert (part["table"], part["on"], part["text"]) == ("posts", "root_id", ["body"])
    for name in (*others, *["pages"] * (title == "title")):
        assert len(shown(propose, made, name)) == 12, name


def test_a_rendered_copy_of_a_text_is_left_out(propose):
    html = f"<p>{PROSE}. <b>No.</b> {{n}}.</p>"
    made = propose({"pages": many(12, title="Page {n} of the mill", body=f"{PROSE}. No. {{n}}.", body_html=html)})
    assert index(made, "pages")["text"] == ["body"]


def test_the_column_with_the_language_of_a_row_is_named_if_there_are_several(propose):
    made = propose({"page": pages("locale TEXT", ["en_GB", "de_DE"]), "article": pages("locale TEXT", ["de_DE"])})
    several, one = index(made, "page"), index(made, "article")
    assert (sorted(several["language"]), several["language_column"]) == (["english", "german"], "locale")
    assert (one["language"], one.get("language_column")) == ("german", None)


ACCOUNTS = many(
    8, "uid", name="Ann {n}", **{"pass": "$2y$10$abcdefgh{n}"}, mail="ann{n}@mill.example", status=lambda n: int(n > 1)
)


@pytest.mark.parametrize(
    ("accounts", "files", "hides"),
    [(ACCOUNTS, 1, True), (ACCOUNTS, 2, False), (None, 1, False)],
    ids=["active accounts", "another status has more values", "no accounts"],
)
def test_a_status_of_0_or_1_hides_rows_where_all_tables_have_such_and_accounts_are_active_with_1(
    propose, accounts, files, hides
):
    tables = {"pages": pages("status INTEGER NOT NULL", [0, 0, 1]), "events": pages("status INTEGER", [1])}
    tables["files"] = many(9, "fid", uri="/{n}.png", status=files)
    made = propose(tables | ({"people": accounts} if accounts else {}))
    page = next(one for one in made.indexes if one.tables[0] == "pages")
    assert page.settings.get("where") == ("status = 1" if hides else None)
    assert bool(page.unclear) is not hides
    assert len(shown(propose, made, "pages")) == (10 if hides else 12)


@pytest.mark.parametrize(("published", "where"), [("published_at", "archived_at IS NULL"), ("opened_at", None)])
def test_what_was_archived_after_it_was_published_is_not_out(propose, published, where):
    times = {published: DAY, "archived_at": lambda n: DAY if n == 3 else None}
    made = propose({"pages": many(12, title="Page {n}", body=TEXT, **times, kinds=dict.fromkeys(times, "DATETIME"))})
    assert index(made, "pages").get("where") == where


def test_drafts_that_a_table_of_their_own_has_are_no_part(propose):
    drafts = many(12, ticket_id=itself, new_article=f"{PROSE} perhaps {{n}}")
    made = propose({"tickets": pages(), "ticket_shared_draft_zooms": drafts})
    assert "parts" not in index(made, "tickets")


def entities(*, extra=()):
    """Return the tables of pages in two languages, each with its versions, in the way of Drupal."""
    data = [(n, n, code, f"Page {n} {code}") for n in range(1, 13) for code in ("en", "de") if code == "en" or n < 4]
    text = [(n, 0, n, code, 0, f"<p>{PROSE} {n} {code}</p>") for n, _, code, _ in data]
    columns = "entity_id INTEGER, deleted INTEGER, revision_id INTEGER, langcode TEXT, delta INTEGER, body_value TEXT"
    others = {f"{name}_data": ("id INTEGER PRIMARY KEY", [(1,)]) for name in ("menu", "file", "term", "user", "block")}
    return others | {
        "node": many(12, "nid", vid=itself, langcode="en"),
        "node_field_data": (
            "nid INTEGER, vid INTEGER, langcode TEXT, title TEXT, PRIMARY KEY (nid, langcode)", data),
        "node_field_revision": (
            "nid INTEGER, vid INTEGER, langcode TEXT, title TEXT, PRIMARY KEY (vid, langcode)",
            [*data, *[(n, n + 50, "en", f"Old page {n}") for n in range(1, 13)]]),
        "node__body": (f"{columns}, PRIMARY KEY (entity_id, deleted, delta, langcode)", [*text, *extra]),
        "node_revision__body": (
            f"{columns}, PRIMARY KEY (entity_id, revision_id, deleted, delta, langcode)",
            [*text, *[(n, 0, n + 50, "en", 0, f"<p>Old {PROSE} {n}</p>") for n in range(1, 13)]]),
        "node__field_parts": (
            "entity_id INTEGER, delta INTEGER, field_parts_value TEXT, PRIMARY KEY (entity_id, delta)",
            [(n, delta, f"Wheel of oak {n}{delta}") for n in (6, 7) for delta in (0, 1, 2)]),
    }  # fmt: skip


def test_a_document_in_each_language_has_the_texts_of_its_language_and_no_older_versions(propose):
    made = propose(entities())
    page = index(made, "node_field_data")
    assert (page["key"], page["title"]) == (["nid", "langcode"], "title")
    body, values = page["parts"]
    assert (body["table"], body["on"]) == ("node__body", {"entity_id": "nid", "langcode": "langcode"})
    assert (values["table"], values["on"]) == ("node__field_parts", {"entity_id": "nid"})
    assert len(shown(propose, made, "node_field_data")) == 15
    assert [one.tables[0] for one in made.indexes] == ["node_field_data"]
    assert made.left_out["node_revision__body"] == "holds older versions of the rows of node__body"
    assert made.left_out["node_field_revision"] == "holds older versions of the rows of node_field_data"
    assert "node_revision__body" in str(propose({}, add=["node_revision__body"]).indexes)


def test_texts_in_a_language_that_has_no_document_belong_to_all(propose):
    made = propose(entities(extra=[(9, 0, 9, "fr", 0, f"<p>{PROSE} en français</p>")]))
    assert index(made, "node_field_data")["parts"][0]["on"] == {"entity_id": "nid"}


DUMP = "---\n:inbound:\n  :host: imap{n}.mill.example\n  :password: horse{n}\n"


@pytest.mark.parametrize(("text", "found"), [(DUMP, False), ("---\ntitle: Mill {n}\n---\n" + TEXT, True)])
def test_objects_that_a_program_wrote_as_yaml_are_no_text_and_front_matter_is(propose, text, found):
    made = propose({"channels": many(24, name="Channel {n} of the mill", body=text)})
    assert ("body" in str([one.settings.get("text") for one in made.indexes])) is found


@pytest.mark.parametrize(
    ("kind", "count", "is_part"),
    [("stage", 40, False), ("stage", 8, True), ("task", 8, False)],
    ids=["many for each project", "few for each project", "tasks, however few"],
)
def test_rows_with_titles_and_texts_are_documents_if_what_contains_them_contains_many(propose, kind, count, is_part):
    made = propose(
        {
            "project_project": many(4, name="Mill {n}", description=PROSE),
            f"project_{kind}": many(count, project_id=cycle(4), name="Work no. {n} of it", description=TEXT),
        }
    )
    assert (f"project_{kind}" in made.left_out) is is_part


def test_orders_called_by_a_code_are_no_parts_of_a_customer(propose):
    orders = many(30, company_id=cycle(12), name=lambda n: f"SO/2024/{n:04}", note=TEXT)
    assert "name" in index(propose({"companies": pages(), "sale_orders": orders}), "sale_orders")["text"]


def test_texts_in_several_languages_in_one_value_have_no_keys_and_words_alone_are_titles(propose):
    names = {"name": lambda n: f'{{"en_US": "Chair{n}", "fr_FR": "Chaise{n}"}}'}
    names["description"] = lambda n: f'{{"en_US": "{PROSE} {n}"}}'
    one = index(propose({"products": many(12, **names, kinds=dict.fromkeys(names, "JSON"))}), "products")
    assert (one["title"], one["text"], one["format"]["name"]) == ("name", ["description"], "json")


def test_a_number_that_orders_rows_names_none_of_a_table_of_that_name(propose):
    sequences = dict.fromkeys(["sequences_of_numbers", "number_sequence"], names("Orders of the year", "Invoices"))
    assert "joins" not in index(propose({"products": pages("sequence INTEGER", [1]), **sequences}), "products")


def test_what_a_link_names_by_type_and_id_is_no_label(propose):
    """A follower of pages and machines: the number of a machine is that of a page, too."""
    of = {"record_type": lambda n: ["page", "machine"][n % 2], "record_id": cycle(12)}
    links = many(39, firm_id=cycle(12), **of)
    machines = many(12, name="Wheel no. {n}")
    made = propose({"firms": pages(), "pages": pages(), "machines": machines, "followers": links})
    assert "parts" not in index(made, "firms")


def test_tables_that_describe_the_tables_are_left_out(propose):
    called = ["sale.page", "sale.order", "sale.firm", "sale.machine", "mixin"]
    made = propose(
        {
            **{name.replace(".", "_"): pages() for name in called[:4]},
            "ir_model": many(5, model=lambda n: called[n - 1], name="Name of {n}", info=TEXT),
            "ir_model_fields": many(30, model_id=cycle(5), name="Field no. {n}", help=TEXT),
        }
    )
    assert made.left_out["ir_model"] == made.left_out["ir_model_fields"] == "describes the tables of the application"


@pytest.mark.parametrize("name", ["mail.password", "mail.server"])
def test_names_of_settings_with_values_are_no_documents_however_many_columns_the_table_has(propose, name):
    rows = [(f"{name}.{n}", f"Wheel-{n}", f"{PROSE} {n}", *[f"Mill no. {n}"] * 5) for n in range(1, 13)]
    columns = "property TEXT PRIMARY KEY, property_value TEXT, description TEXT, a TEXT, b TEXT, c TEXT, d TEXT, e TEXT"
    assert propose({"mill_values": (columns, rows)}).left_out["mill_values"] == "holds settings: names with values"


def test_a_password_of_few_rows_and_the_id_of_a_user_make_no_account(propose):
    """Nor does a word of a newsletter, such as `email_digest`."""
    few = {"modified_user_id": cycle(3), "email_digest": 1}
    password = {"password": lambda n: "s3cret-3" if n == 3 else None}
    made = propose({"meetings": many(12, name="Meeting no. {n}", description=TEXT, **few, **password)})
    assert index(made, "meetings")["where"] == "COALESCE(password, '') = ''"


def test_a_key_called_like_the_last_word_of_its_table_is_its_own(propose):
    made = propose(
        {
            "visit": many(30, title="Visit {n} of the mill", report=TEXT),
            "visit_paper_source": many(9, "paper_source_id", name="Source {n} of the mill", description=TEXT),
        }
    )
    assert "parts" not in index(made, "visit")


def test_rows_are_called_by_what_tells_them_apart_and_not_by_a_job_that_many_have(propose):
    jobs = [f"{area} {what}" for area in ("Export", "Sales", "Order", "Head") for what in ("Administrator", "Manager")]
    made = propose({"suppliers": many(15, company_name="Mill {n} and sons", contact_title=lambda n: jobs[n % 8])})
    assert (index(made, "suppliers")["title"], "where" in index(made, "suppliers")) == ("company_name", False)


def test_orders_called_by_names_that_many_of_them_have_are_no_labels(propose):
    lines = "product_id INTEGER, order_id INTEGER, pieces INTEGER, PRIMARY KEY (order_id, product_id)"
    made = propose(
        {
            "products": pages(),
            "orders": many(28, ship_name=lambda n: f"Mill no. {n % 12}", ordered_at=DAY),
            "order_lines": (lines, [(n % 12 + 1, n, n) for n in range(1, 29)]),
        }
    )
    assert "parts" not in index(made, "products")


def test_a_row_whose_key_is_that_of_another_row_is_a_part_of_that_one(propose):
    taken = {"drug_id": cycle(3), "instructions": f"Take it as told: {TEXT}"}
    drug_orders = many(12, "order_id", **taken, kinds={"order_id": "INTEGER PRIMARY KEY REFERENCES orders(id)"})
    made = propose({"drugs": pages(), "orders": pages(), "drug_orders": drug_orders})
    assert made.left_out["drug_orders"] == "is a part of orders"


def test_the_value_of_a_part_may_be_a_row_with_names_in_a_table_of_their_own(propose):
    words = [("Small", "en", 0), ("Wrong", "en", 1), ("Big", "en", 1), ("Grand", "fr", 1)]
    called = [
        (n * 10 + number, n, f"{word} {'wheel' if n % 2 else 'sack'} {n}", locale, preferred, int(word == "Wrong"))
        for n in range(1, 13)
        for number, (word, locale, preferred) in enumerate(words)
    ]
    columns = "id INT PRIMARY KEY, concept_id INT, name TEXT, locale TEXT, main INT, void INT"
    observed = many(
        59, encounter_id=cycle(12), value_text=TEXT, comments=lambda n: PROSE[:40] if n == 3 else None,
        value_coded=lambda n: n % 5 + 1 if n > 9 else None, kinds={"value_coded": "INT REFERENCES concept(concept_id)"},
    )  # fmt: skip
    concepts = {"concept": many(12, "concept_id", kind=itself), "concept_name": (columns, called)}
    made = propose({"encounter": pages(), **concepts, "obs": observed})
    (part,) = index(made, "encounter")["parts"]
    assert part["text"] == ["value_text", "comments", "value_coded_2.name"]  # comments are rare, and yet text
    engine = sa.create_engine(propose.url)
    where = part["joins"]["value_coded_2"]["where"]
    with engine.connect() as connection:
        found = connection.exec_driver_sql(f"SELECT concept_id, name FROM concept_name WHERE {where}").all()
    engine.dispose()
    assert dict(found)[3] == "Big wheel 3"
    assert len(found) == 12


def test_what_was_retired_is_left_out_and_what_happened_there_is_not(propose):
    visits = many(59, ward_id=cycle(3), title="Visit {n} of the mill", report=TEXT)
    made = propose({"wards": pages("retired INTEGER", [0, 1, 0]), "visits": visits})
    assert shown(propose, made, "wards") == keys(12, "2")
    assert len(shown(propose, made, "visits")) == 59


@pytest.mark.parametrize(
    ("name", "title", "is_document"),
    [("category", "Wheel {n}", True), ("page_type", "Wheel {n}", False), ("word", None, False)],
)
def test_a_few_things_with_a_description_are_documents_and_kinds_are_none(propose, name, title, is_document):
    few = many(4, name=title, description="Sacks, ropes and no. {n}")
    made = propose({"pages": pages(f"{name}_id INTEGER", [1, 2, 3, 4]), name: few})
    assert (name in made.left_out) is not is_document


def test_what_a_role_may_do_is_for_programs(propose):
    made = propose({name: pages() for name in ("privileges", "capabilities", "page")})
    assert made.left_out == dict.fromkeys(["privileges", "capabilities"], "is for programs, by its name")


def test_what_a_category_of_its_name_contains_is_no_part_and_a_flag_may_be_one_word_with_is(propose):
    asked = {"question": "What is wheel no. {n}?", "answer": TEXT, "isprivate": lambda n: int(n == 7)}
    made = propose(
        {
            "faq": many(12, "faq_id", category_id=cycle(3), **asked),
            "faq_category": many(3, "category_id", name="Kind {n} of mill", description="About mill {n}"),
        }
    )
    assert shown(propose, made, "faq") == keys(12, "7")


def test_entries_with_titles_are_parts_of_a_thread_that_has_no_text(propose):
    entries = many(36, thread_id=cycle(12), title="Question no. {n}", body=TEXT)
    assert parts(propose({"thread": many(12, kind=itself), "thread_entry": entries}), "thread") == ["thread_entry"]


def wiki(prefix="tt:"):
    """Return the tables of a wiki in the way of MediaWiki: pages, versions, what they consist of, and texts."""
    page = {"page_title": "Mill_of_{n}", "page_latest": lambda n: 2 * n, "page_is_redirect": lambda n: int(n == 3)}
    return {
        "page": many(20, "page_id", **page),
        "revision": many(40, "rev_id", rev_page=lambda n: (n + 1) // 2, rev_minor_edit=lambda n: n % 2, rev_sha1=""),
        "slots": ("slot_revision_id INT, role INT, slot_content_id INT, PRIMARY KEY (slot_revision_id, role)",
                  [(n, 1, n + 100) for n in range(1, 41)]),
        "content": ("content_id INTEGER PRIMARY KEY, content_size INTEGER, content_address TEXT",
                    [(n + 100, 9, f"{prefix}{n + 500}") for n in range(1, 41)]),
        "text": ("old_id INTEGER PRIMARY KEY, old_text TEXT, old_flags TEXT",
                 [(n + 500, f"{PROSE} {n}", "utf-8") for n in range(1, 41)]),
    }  # fmt: skip


def test_the_newest_text_of_a_page_is_found_by_a_table_of_links_and_an_address(propose):
    made = propose(wiki())
    assert [one.tables[0] for one in made.indexes] == ["page"]
    assert made.left_out["text"] == "holds the text of page"
    (part,) = index(made, "page")["parts"]
    assert part["on"] == {"slot_revision_id": "page_latest"}
    assert part["joins"]["text"]["on"] == {"tt:{old_id}": "content.content_address"}
    assert documents(propose, made, "page") == {n: f"{PROSE} {2 * int(n)}" for n in keys(20, "3")}


def test_an_address_of_texts_elsewhere_names_no_row(propose):
    assert propose(wiki("es:99")).left_out["text"].startswith("holds texts, and no column says of what they are")


def test_a_letter_that_says_who_may_see_a_row_is_no_text(propose):
    assert index(propose({"links": pages("link_visible TEXT", ["Y", "N", "Y"], 3)}), "links")["text"] == ["body"]


def test_keys_of_programs_are_left_out_though_they_have_descriptions(propose):
    secret = {"consumer_key": lambda n: f"ck_{sha1(bytes([n])).hexdigest()}", "truncated_key": lambda n: f"{n:07x}"}
    laptops = {"title": "Laptop {n} of the miller", "key": TEXT, "fingerprint": "ab:{n}"}
    api_keys = many(12, description="The key of mill no. {n}", **secret)
    made = propose({"api_keys": api_keys, "keys": many(24, **laptops), "pages": pages()})
    assert made.left_out["api_keys"] == made.left_out["keys"] == "holds keys"


def test_conversations_between_persons_are_hidden_with_their_type_and_what_is_in_a_hidden_category_too(propose):
    """Private topics have no category, which hides no other; a list of featured topics names categories as well."""
    kinds = {"archetype": lambda n: "regular" if n < 10 else "private_message"}
    category = {"category_id": lambda n: n % 3 + 1 if n < 10 else None}
    made = propose(
        {
            "topic": many(12, title="Topic {n} of the mill", body=TEXT, **kinds, **category,
                          kinds={"category_id": "INTEGER"}),
            "category": ("id INTEGER PRIMARY KEY, name TEXT, read_restricted INTEGER",
                         [(1, "Mills", 0), (2, "Wheels", 0), (3, "Bakers", 1)]),
            "category_topic": ("category_id INTEGER, topic_id INTEGER, PRIMARY KEY (category_id, topic_id)",
                               [(n % 3 + 1, n) for n in range(1, 10)]),
        }
    )  # fmt: skip
    assert shown(propose, made, "topic") == keys(9, "258")


def test_a_channel_of_two_persons_is_hidden_though_there_are_few_channels(propose):
    channels = [(1, "Mill talk", "CategoryChannel"), (2, "Wheel talk", "CategoryChannel")]
    columns = "id INTEGER PRIMARY KEY, name TEXT, type TEXT"
    made = propose(
        {
            "chat_message": many(30, chat_channel_id=cycle(3), message=TEXT),
            "chat_channel": (columns, [*channels, (3, None, "DirectMessageChannel")]),
        }
    )
    assert shown(propose, made, "chat_message") == {str(n) for n in range(1, 31) if n % 3 != 2}


def test_a_flag_for_what_can_be_done_with_a_row_hides_none(propose):
    posts, boards = pages("comments_enabled INTEGER", [0, 1, 0]), pages("board_enabled INTEGER", [1, 0, 1])
    made = propose({"posts": posts, "boards": boards})
    assert (len(shown(propose, made, "posts")), len(shown(propose, made, "boards"))) == (12, 11)


def shop():
    """Return the tables of a shop whose products have texts by language and by shop, in the way of PrestaShop."""
    both = [(n, 1, language) for n in range(1, 13) for language in (1, 2)]
    value_key, key = "PRIMARY KEY (id_feature_value, id_lang)", "PRIMARY KEY ({}, id_shop, id_lang)".format
    texts = "id_product INT, id_shop INT, id_lang INT, name TEXT, meta_title TEXT, description TEXT, "
    product = {"reference": lambda n: f"MW-{n:03}", "state": 1, "active": lambda n: int(n != 7)}
    order = {"id_carrier": lambda n: 1 + n % 2, "id_shop": 1, "id_lang": lambda n: 1 + n % 2, "gift_message": TEXT}
    comment = f"{PROSE}, says buyer {{n}}"
    return {
        "ps_product": many(12, "id_product", id_shop_default=1, **product),
        "ps_product_lang": (texts + key("id_product"),
                            [(*one, f"Wheel of mill {one[0]}", f"Buy {one[0]} now", f"{PROSE} {one}") for one in both]),
        "ps_product_comment": many(30, "id_product_comment", id_product=cycle(12), title="Good",
                                   content=comment),
        "ps_carrier": names("Cart", "Post", key="id_carrier"),
        "ps_carrier_lang": (f"id_carrier INT, id_shop INT, id_lang INT, delay TEXT, {key('id_carrier')}",
                            [(n, 1, k, "In two days") for n in (1, 2) for k in (1, 2)]),
        "ps_orders": many(30, "id_order", **order),
        "ps_order_state": many(2, "id_order_state", name="Is it sent {n}", hidden=lambda n: 2 - n),
        "ps_lang": ("id_lang INTEGER PRIMARY KEY, name TEXT, iso_code TEXT",
                    [(1, "English (English)", "en"), (2, "Deutsch (German)", "de")]),
        "ps_shop": names("The mill", key="id_shop"),
        "ps_feature_product": ("id_product INT, id_feature_value INT, PRIMARY KEY (id_product, id_feature_value)",
                               [(n, n % 3 + 1) for n in range(1, 13)]),
        "ps_feature_value": many(3, "id_feature_value", custom=0),
        "ps_feature_value_lang": (f"id_feature_value INT, id_lang INT, value TEXT, {value_key}",
                                  [(n, k, f"{'Oak' if k == 1 else 'Eiche'} {'dry fine raw'.split()[n - 1]}")
                                   for n in range(1, 4) for k in (1, 2)]),
    }  # fmt: skip


def test_a_product_with_texts_by_number_of_language_is_a_document_in_each_with_its_reviews(propose):
    made = propose(shop())
    product = index(made, "ps_product_lang")
    assert product["key"] == ["id_product", "id_shop", "id_lang"]
    assert (product["title"], product["text"]) == ("name", ["description", "meta_title", "product.reference"])
    assert parts(made, "ps_product_lang") == ["ps_product_comment", "ps_feature_product"]
    assert product["parts"][1]["on"] == {"id_product": "id_product", "feature_value.id_lang": "id_lang"}
    assert len(shown(propose, made, "ps_product_lang")) == 22  # the product that is not active is in neither
    assert not [one.tables for one in made.indexes if "parts" in one.settings and one.tables[0] == "ps_carrier_lang"]


def cms(*, kinds=1):
    """Return pages in a tree by path, whose texts are in tables of their kinds, and versions of them as JSON."""
    paths = {1: "0001", 2: "00010001", 3: "00010002", 4: "000100020001", **{n: f"0001{n:04}" for n in range(5, 31)}}
    page = {"title": "Page {n} of the mill", "draft_title": "Draft {n} of it"}
    versions = {"latest_revision_id": lambda n: n + 100, "live_revision_id": itself}
    said = [(n, "The text of the mill") for n in paths] + [(n + 100, "The latest text of the mill") for n in paths]
    tables = {
        "page": many(30, path=lambda n: paths[n], **page, **versions),
        "revision": ("id INTEGER PRIMARY KEY, content TEXT", [(n, f'{{"body": "{text} {n}"}}') for n, text in said]),
        "page_view_restriction": ("id INTEGER PRIMARY KEY, page_id INTEGER, password TEXT", [(1, 3, "s3cret")]),
        "search_index_entry": many(30, title="Page {n} of the mill", body=TEXT),
    }
    for kind in range(kinds):
        rows = [(n, f"{PROSE} {n}") for n in paths if n % kinds == kind]
        tables[f"kind{kind}_page"] = ("page_ptr_id INTEGER PRIMARY KEY REFERENCES page (id), body TEXT", rows)
    return tables


def test_pages_of_all_kinds_have_their_own_texts_and_no_version_of_them(propose):
    made = propose(cms(kinds=12))
    page = index(made, "page")
    assert (len(page["parts"]), "text" in page) == (12, False)
    assert page["payload"] == []  # the title of a draft is none
    assert made.left_out["search_index_entry"] == "is for programs, by its name"


def test_of_two_versions_the_one_that_is_out_is_shown(propose):
    assert index(propose(cms(kinds=0)), "page")["text"] == ["live_revision.content"]


@pytest.mark.parametrize("later", [False, True], ids=["at once", "one day"])
def test_what_is_below_a_page_for_which_one_has_to_log_in_is_hidden(propose, later):
    tables = cms()
    if later:
        restriction = "id INTEGER PRIMARY KEY, page_id INTEGER REFERENCES page (id)"
        tables["page_view_restriction"] = (restriction, [])
    made = propose(tables)
    engine = sa.create_engine(propose.url)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO page_view_restriction (id, page_id) VALUES (2, 3)")
    engine.dispose()
    assert shown(propose, made, "page") == keys(30, "34")


@pytest.mark.parametrize("column", ["permission_type", "data_type"])
def test_a_type_by_number_is_none_of_another_table_with_types(propose, column):
    key = f"page_id INTEGER, {column} INTEGER, PRIMARY KEY (page_id, {column})"
    group_page = (key, [(n, n % 3 + 1) for n in range(1, 13)])
    made = propose({"group_page": group_page, "page": pages(), "badge_types": names("Gold", "Silver", "Bronze")})
    assert "parts" not in index(made, "page")


def test_mails_as_they_came_in_are_no_text(propose):
    raw = f"From: kim{{n}}@mill.example\nTo: desk@mill.example\nSubject: Wheel\n\n{TEXT}"
    assert propose({"incoming": many(12, raw=raw), "page": pages()}).left_out["incoming"] == "has no text"


def test_a_message_is_a_part_of_its_conversation_and_not_of_whoever_sent_it(propose):
    sender = {"sender_type": lambda n: ("User", "Contact")[n % 2], "sender_id": cycle(12)}
    made = propose(
        {
            "messages": many(48, conversation_id=cycle(12), **sender, content=TEXT),
            "conversations": many(12, contact_id=itself),
            "contacts": many(12, name="Kim Mill of {n}"),
            "users": many(12, name="Lee {n}", password="x"),
        }
    )
    assert parts(made, "conversations") == ["messages"]


@pytest.mark.parametrize(("typed", "are_parts"), [(8, False), (12, True)])
def test_answers_of_which_only_some_belong_to_something_are_documents(propose, typed, are_parts):
    """Conversations have a text of their own, too: what is known of each. Yet they are no parts of a person."""
    said = {"custom_attributes": lambda n: f'{{"read before": "{PROSE} {n}"}}'}
    origin = {"origin_type": lambda n: "Conversation" if n <= typed else None, "origin_id": itself}
    made = propose(
        {
            "messages": many(48, conversation_id=cycle(12), content=TEXT),
            "conversations": many(12, contact_id=cycle(6), **said, kinds={"custom_attributes": "JSON"}),
            "contacts": many(6, name="Kim Mill of {n}", about=TEXT),
            "captain_responses": many(12, question="What does wheel {n} need?", answer=TEXT, **origin),
        }
    )
    assert sorted(parts(made, "conversations")) == ["captain_responses"] * are_parts + ["messages"]
    if not are_parts:
        assert index(made, "captain_responses")["title"] == "question"


def test_a_number_that_names_a_row_of_another_table_hides_none(propose):
    article = many(
        12, title="Wheel {n}", body=TEXT, status=lambda n: {2: 2, 4: 3}.get(n, 1), slug="wheel-{n}",
        kinds={"status": "INT REFERENCES stage (id)"},
    )  # fmt: skip
    made = propose({"article": article, "stage": names("Fast wheels", "Slow wheels", "No wheels")})
    assert len(shown(propose, made, "article")) == 12


def test_notes_that_name_a_patient_are_no_parts_of_a_table_called_like_theirs(propose):
    """`pid` of `form_soap` may be a row of `form`, by its name, which has a `pid` of its own."""
    patients = [(n, n, f"Kim {n}", f"Miller {n}") for n in range(1, 13)]
    made = propose(
        {
            "forms": many(48, pid=cycle(12), form_name="Sheet {n} of the mill"),
            "form_soap": many(24, pid=cycle(12), plan=TEXT),
            "patient_data": ("id INTEGER, pid INTEGER NOT NULL UNIQUE, fname TEXT, lname TEXT", patients),
        }
    )
    assert "form_soap" not in [table for one in made.indexes if one.tables[0] == "forms" for table in one.tables]
    assert "has no primary key" not in str(made.left_out)


def test_a_thing_is_hidden_by_the_row_of_its_kind(propose):
    kinds = {
        name: (f"id INTEGER PRIMARY KEY REFERENCES entity (id), {column} TEXT, state TEXT",
               [(n, f"{PROSE} of {n}", "Draft" if n % 10 == 7 else "Published") for n in range(first, first + 10)])
        for name, column, first in [("faq", "answer", 1), ("ticket", "solution", 11), ("quote", "terms_text", 21)]
    }  # fmt: skip
    made = propose({"entity": many(30, label="Wheel {n}", description=TEXT), **kinds})
    assert shown(propose, made, "entity") == keys(30, ["7", "17", "27"])


def wheel_shop(**more):
    """Return the tables of a shop whose products and categories have texts by language, in the way of OpenCart."""
    described = "{0}_id INT, language_id INT, name TEXT, description TEXT, PRIMARY KEY ({0}_id, language_id)".format
    available = {"date_available": lambda n: "2031-03-01" if n == 3 else "2022-03-01"}
    return {
        "language": names("English", "German"),
        "product": many(24, "product_id", kinds={"date_available": "DATE"}, **available),
        "product_description": (described("product"),
                                [(n, k, f"Wheel {n} {k}", f"{PROSE} {n} {k}") for n in range(1, 25) for k in (1, 2)]),
        "category": many(6, "category_id", sort_order=itself),
        "category_description": (described("category"), [(n, k, f"Kind {n} {k}", f"{PROSE} for kind {n} {k}")
                                                         for n in range(1, 7) for k in (1, 2)]),
        "product_to_category": ("product_id INT, category_id INT, PRIMARY KEY (product_id, category_id)",
                                [(n, n % 6 + 1) for n in range(1, 25)]),
        **more,
    }  # fmt: skip


def test_a_category_contains_products_and_is_a_label_of_them_but_for_those_that_are_not_available_yet(propose):
    made = propose(wheel_shop())
    found = {one.tables[0]: str(one.settings.get("parts")) for one in made.indexes}
    assert "product" not in found["category_description"]
    assert "category" in found["product_description"]
    assert not {"[3,1]", "[3,2]"} & shown(propose, made, "product_description")


def test_what_a_product_is_linked_to_has_its_text_beside_it(propose):
    key = "PRIMARY KEY (product_id, attribute_id, language_id)"
    attributes = {
        "attribute_description": (
            "attribute_id INT, language_id INT, name TEXT, PRIMARY KEY (attribute_id, language_id)",
            [(n, k, f"Size {n} {k}") for n in range(1, 4) for k in (1, 2)]),
        "attribute": many(3, "attribute_id", sort_order=itself),
        "product_attribute": (
            f"product_id INT, attribute_id INT, language_id INT, text TEXT, {key}",
            [(n, n % 3 + 1, k, ("Birch", "Larch")[n % 2]) for n in range(1, 25) for k in (1, 2)]),
    }  # fmt: skip
    made = propose(wheel_shop(**attributes))
    (part,) = [one for one in index(made, "product_description")["parts"] if one["table"] == "product_attribute"]
    assert part["text"] == "{attribute_description.name}: {text}"
    assert part["on"] == {
        "product_id": "product_id", "attribute_description.language_id": "language_id", "language_id": "language_id"
    }  # fmt: skip


def test_what_was_said_when_an_order_changed_is_a_part_of_it_if_people_were_told(propose):
    history = many(48, order_id=cycle(12), notify=lambda n: int(n % 5 > 0), comment=TEXT)
    made = propose({"order_history": history, "orders": many(12, name="Wheel of {n}", comment=TEXT)})
    (part,) = index(made, "orders")["parts"]
    assert (part["table"], part["where"]) == ("order_history", "notify = 1")


def test_bugs_have_notes_and_texts_of_tables_of_their_own_whatever_all_tables_end_with(propose):
    """In the way of MantisBT."""
    bug_columns = {"bug_text_id": itself, "view_state": lambda n: 50 if n == 7 else 10}
    note_columns = {"bug_id": cycle(24), "bugnote_text_id": itself}
    made = propose(
        {
            "mantis_bug_table": many(24, project_id=cycle(3), **bug_columns, summary="The wheel {n} creaks"),
            "mantis_bug_text_table": many(24, description=TEXT, steps_to_reproduce="Turn wheel {n} and wait"),
            "mantis_bugnote_table": many(48, **note_columns, view_state=lambda n: 50 if n == 9 else 10),
            "mantis_bugnote_text_table": many(48, note=f"<p>{PROSE}, note {{n}}</p>"),
            "mantis_project_table": many(3, name="Mill {n}", description=f"{PROSE} in mill {{n}}"),
            "mantis_custom_field_table": names("Machine", "Workaround"),
            "mantis_custom_field_string_table": ("field_id INT, bug_id INT, value TEXT, PRIMARY KEY (field_id, bug_id)",
                                                 [(n % 2 + 1, n, f"Wheel of stone {n}") for n in range(1, 25)]),
        }
    )  # fmt: skip
    assert {one.tables[0]: one.name for one in made.indexes} == {
        "mantis_bug_table": "bug", "mantis_project_table": "project"
    }  # fmt: skip
    bug = index(made, "mantis_bug_table")
    assert (bug["title"], bug["where"]) == ("summary", "view_state = 10")
    assert bug["text"][:2] == ["bug_text.description", "bug_text.steps_to_reproduce"]
    note, field = bug["parts"]
    assert (note["table"], note["where"]) == ("mantis_bugnote_table", "view_state = 10")
    (text,) = note["text"]
    assert note["format"] == {text: "html"}
    assert field["text"] == "{custom_field.name}: {value}"
    texts = documents(propose, made, "mantis_bug_table").values()
    assert sum(text.count(", note ") for text in texts) == 45  # one is for few, two are of a bug that is


@pytest.mark.parametrize(
    ("states", "hidden"),
    [(["Approved", "Pending", "Not Approved"], "23"), (["Open", "Closed", "Deleted"], "3"),
     (["New", "Waiting", "Closed"], ""), (["Open", "Pending", "On hold"], "")],
)  # fmt: skip
def test_rows_are_hidden_by_what_their_state_is_called_in_a_table_of_its_own(propose, states, hidden):
    tickets = many(24, title="Wheel {n}", body=TEXT, status_id=lambda n: n if n <= 3 else 1)
    made = propose({"ticket": tickets, "ticket_status": names(*states, key="status_id", name="status_code")})
    assert shown(propose, made, "ticket") == keys(24, hidden)


def test_what_moderators_are_told_is_no_part_of_a_post(propose):
    made = propose({"posts": pages(), "reports": many(12, post_id=itself, report_text=f"Spam: {TEXT}")})
    assert "parts" not in index(made, "posts")
    assert made.left_out["reports"] == "holds what moderators are told"


def test_a_key_that_happens_to_be_that_of_another_table_is_none_if_another_column_names_its_rows(propose):
    above = {"parent_id": "INT REFERENCES sales_order (entity_id)"}
    history = many(24, "entity_id", parent_id=lambda n: 25 - n, comment=f"{PROSE} of {{n}}", kinds=above)
    orders = many(24, "entity_id", title="Order of wheel {n}", body=TEXT)
    (part,) = index(propose({"sales_order": orders, "sales_order_status_history": history}), "sales_order")["parts"]
    assert part["on"] == "parent_id"


def test_versions_of_some_rows_are_no_documents_of_rows_whose_text_another_table_holds(propose):
    made = propose(
        {
            "bug": many(24, bug_text_id=itself, summary="The wheel {n} creaks"),
            "bug_text": many(24, description=TEXT),
            "bug_revision": many(6, bug_id=itself, value=f"{PROSE} as it was {{n}}"),
        }
    )
    assert [one.tables[0] for one in made.indexes] == ["bug"]
    assert len(shown(propose, made, "bug")) == 24


def test_a_shop_to_which_everything_refers_has_no_parts_and_the_details_of_a_review_are_parts_of_it(propose):
    """In the way of Magento."""
    store = {"store_id": cycle(2)}
    detail = {"review_id": itself, **store, "title": "Fine wheel {n}", "detail": TEXT}
    made = propose(
        {
            "store": names("English", "Deutsch", key="store_id"),
            "review": many(50, "review_id", created_at=DAY, kinds={"created_at": "TIMESTAMP"}),
            "review_detail": many(50, "detail_id", **detail),
            **{f"thing_{n}": many(12, **store, amount=itself) for n in range(9)},
        }
    )
    (part,) = index(made, "review")["parts"]
    assert part["text"] == ["title", "detail"]
    assert "store" not in [one.tables[0] for one in made.indexes]


def test_the_project_of_a_link_is_no_label_of_what_names_its_project_itself(propose):
    """In the way of GitLab, where each table repeats the project."""
    links = {"issue_id": cycle(24), "project_id": lambda n: (n % 24 + 1) % 3 + 1, "label_id": cycle(4)}
    made = propose(
        {
            "projects": many(3, name="Mill {n} at the weir"),
            "labels": many(4, title="urgent {n}"),
            "issues": many(24, project_id=cycle(3), title="Issue {n} of the mill", description=TEXT),
            "label_links": many(48, **links),
        }
    )
    assert [part["name"] for part in index(made, "issues")["parts"]] == ["labels"]


def test_what_holds_parts_and_has_no_text_leads_to_what_they_are_parts_of(propose):
    commits = many(
        48, merge_request_diff_id=cycle(24), message=f"{PROSE} in commit {{n}}",
        kinds={"merge_request_diff_id": "INT REFERENCES merge_request_diffs (id)"},
    )  # fmt: skip
    made = propose(
        {
            "merge_requests": many(24, title="Request {n} of the mill", description=TEXT),
            "merge_request_diffs": many(24, merge_request_id=lambda n: 25 - n, files=itself),
            "merge_request_diff_commits": commits,
        }
    )
    assert [one.tables[0] for one in made.indexes] == ["merge_requests"]
    (part,) = index(made, "merge_requests")["parts"]
    assert (part["table"], part["on"]) == ("merge_request_diff_commits", {"merge_request_diffs.merge_request_id": "id"})
    assert len(shown(propose, made, "merge_requests")) == 24


def test_titles_may_be_numbers_and_places_in_commits_are_no_text(propose):
    place = '{{"head_sha": "{}", "new_path": "src/mill.c", "new_line": 14}}'
    position = {"position": lambda n: place.format(sha1(str(n).encode()).hexdigest())}
    made = propose(
        {
            "milestones": many(24, title=lambda n: f"24.{n}" if n % 3 else f"Freeze {n}", description=TEXT),
            "notes": many(24, milestone_id=itself, note=f"{PROSE} of {{n}}", **position),
        }
    )
    settings = index(made, "milestones")
    assert (settings["title"], settings["parts"][0]["text"]) == ("title", ["note"])


def test_an_older_version_that_a_remark_names_is_no_text_of_it(propose):
    remarks = {"issue_id": itself, "description_version_id": itself, "action": "description"}
    made = propose(
        {
            "issues": many(24, title="Issue {n} of the mill", description=TEXT),
            "description_versions": many(24, issue_id=itself, description=f"{PROSE} as it was {{n}}"),
            "issue_remarks": many(24, **remarks),
        }
    )
    assert "description_versions" not in str(index(made, "issues"))


def test_rows_that_a_table_links_with_a_group_of_persons_are_for_that_group(propose):
    """In the way of Bugzilla, which also has a copy for searching, and passwords called `cryptpassword`."""
    people = {"login_name": "m{n}", "cryptpassword": "x{n}", "realname": "Miller Number {n}", "why": TEXT}
    groups = "group_id INT REFERENCES groups (id)"
    copied = many(
        24, "bug_id", comments=f"{PROSE} copied {{n}}", kinds={"bug_id": "INTEGER PRIMARY KEY REFERENCES bugs (bug_id)"}
    )
    made = propose(
        {
            "bugs": many(24, "bug_id", short_desc="The wheel {n} creaks", body=TEXT),
            "profiles": many(8, "userid", **people),
            "groups": many(3, name="masters {n}"),
            "user_group_map": (f"user_id INT REFERENCES profiles (userid), {groups}",
                               [(n, n % 3 + 1) for n in range(1, 9)]),
            "bug_group_map": (f"bug_id INT REFERENCES bugs (bug_id), {groups}", [(3, 1), (7, 2)]),
            "bugs_fulltext": copied,
            "keywords": many(4, name="noise {n}", description=TEXT),
            "bug_keywords": ("bug_id INT REFERENCES bugs (bug_id), keyword_id INT REFERENCES keywords (id)",
                             [(n, n % 4 + 1) for n in range(1, 25)]),
        }
    )  # fmt: skip
    assert shown(propose, made, "bugs") == keys(24, "37")
    assert index(made, "bugs")["title"] == "short_desc"
    assert made.left_out["profiles"] == "holds the accounts of people who log in"
    assert "bugs_fulltext" in made.left_out
    assert "bugs_fulltext" not in str(made.indexes)
    assert "parts" not in index(made, "keywords")  # the bugs of a keyword are no labels of it


def test_items_of_any_kind_are_no_rows_of_a_table_of_items_and_long_documents_are_no_labels(propose):
    """In the way of GLPI."""
    long = f"{PROSE} {PROSE} {PROSE}{{n}}"
    made = propose(
        {
            "machines": many(5, name="Mill wheel {n}", content=TEXT),
            "changes": many(12, name="Change {n} of the mill", content=long),
            "problems": many(12, name="Problem {n} of the mill", content=TEXT),
            "changes_items": many(12, change_id=itself, itemtype="Machine", items_id=cycle(5)),
            "problems_items": many(12, problem_id=itself, itemtype="Machine", items_id=itself),
        }
    )
    assert "changes" not in str(index(made, "problems"))  # most of its machines are gone
    assert "parts" not in index(made, "machines")


def test_rows_named_by_doctype_and_name_drafts_by_docstatus_and_things_that_are_sold(propose):
    """In the way of Frappe, whose keys are texts called `name`."""
    items = [(f"W-{n}", f"Wheel {n} of oak", f"{PROSE} {n}", f"Brand {n % 3}") for n in range(1, 25)]
    orders = [(f"SO-{n}", f"Order {n} of a mill", f"{PROSE} {n}", 2 if n == 5 else 1) for n in range(1, 13)]
    said = [
        (f"c{n}", f"Re: wheel {n}", f"{PROSE} said {n}", "Sales Order", f"SO-{n}", "Open" if n % 6 else "Trash", "me")
        for n in range(1, 13)
    ]
    key = "name VARCHAR(140) PRIMARY KEY"
    other = "reference_doctype TEXT, reference_name TEXT, email_status TEXT, modified_by TEXT"
    made = propose(
        {
            "tabBrand": (f"{key}, description TEXT", [(f"Brand {n}", f"{PROSE} {n}") for n in range(3)]),
            "tabItem": (f"{key}, item_name TEXT, description TEXT, brand TEXT", items),
            "tabSales Order": (f"{key}, title TEXT, terms TEXT, docstatus INT", orders),
            "tabCommunication": (f"{key}, subject TEXT, content TEXT, {other}", said),
        }
    )
    assert index(made, "tabItem")["title"] == "item_name"
    (part,) = index(made, "tabSales Order")["parts"]
    assert (part["table"], part["on"]) == ("tabCommunication", "reference_name")
    assert part["where"] == "reference_doctype = 'Sales Order' AND email_status NOT IN ('Trash')"
    assert shown(propose, made, "tabSales Order") == {f'"SO-{n}"' for n in range(1, 13)} - {'"SO-5"'}
    assert "modified_by" not in str(made.indexes)


def test_tables_with_copies_of_texts_are_left_out(propose):
    texts = [f"{text} {PROSE}, and {text} asked for it" for text in ("Anna", "Bob", "Cleo", "Dan", "Eve", "Finn")]
    kept = {"body": lambda n: texts[n % 6] if n > 3 else f"{n} was the first draft. {PROSE}"}
    sent = {"html": lambda n: f"<p>{texts[n - 1]}</p>", "plain": lambda n: f"Hello! {texts[n - 1]}"}
    made = propose(
        {
            "stories": many(6, title="Story {n} of the mill", body=lambda n: texts[n - 1]),
            "story_journals": many(19, place=cycle(6), **kept),
            "mailings": many(6, story_id=itself, subject="News {n} of the mill", **sent),
        }
    )
    assert [one.tables for one in made.indexes] == [["stories"]]
    assert made.left_out == dict.fromkeys(["story_journals", "mailings"], "holds copies of the texts of stories")


def test_texts_in_another_language_are_no_copies(propose):
    texts = [f"{PROSE} {name}" for name in ("Anna", "Bob", "Cleo", "Dan")]
    rows = [(n, language, f"Titel {n}", text) for n, text in enumerate(texts, 1) for language in ("en", "de")]
    columns = "id INTEGER, lang TEXT, title TEXT, body TEXT, PRIMARY KEY (id, lang)"
    stories = many(4, title="T {n}", body=lambda n: texts[n - 1])
    made = propose({"stories": stories, "story_texts": (columns, rows)})
    assert "copies" not in made.left_out["story_texts"]


FORUM = {
    "users": many(8, username="user {n}", password="x"),
    "topics": many(14, title="Topic {n}", last_post_id=lambda n: 2 * n),
    "posts": many(28, topic_id=lambda n: (n + 1) // 2, body=TEXT, is_hidden=lambda n: int(n == 4)),
    "tags": ("id INTEGER PRIMARY KEY, name TEXT, is_restricted INTEGER",
             [(1, "Bees", 0), (2, "Staff room", 1), (3, "Honey", 0), (4, "Swarms", 0)]),
    "tag_topic": ("tag_id INTEGER, topic_id INTEGER, PRIMARY KEY (tag_id, topic_id)",
                  [(n % 4 + 1, n) for n in range(1, 15)] + [(1, 5)]),
    "dialogs": ("id INTEGER PRIMARY KEY, last_post_id INTEGER, created_at TIMESTAMP", [(1, 2, None), (2, 3, None)]),
    "dialog_messages": many(19, dialog_id=cycle(2), user_id=cycle(7), content=f"Hush: {TEXT}"),
    "dialog_user": many(8, dialog_id=cycle(2), user_id=cycle(7), last_read_at=None,
                        kinds={"last_read_at": "TIMESTAMP"}),
}  # fmt: skip


def test_topics_are_shown_without_those_of_a_restricted_tag_and_conversations_whose_readers_are_listed(propose):
    """A row is no part of what is last in it, and is shown though that is hidden."""
    made = propose(FORUM)
    assert shown(propose, made, "topics") == {str(n) for n in range(1, 15) if n % 4 != 1}
    assert parts(made, "topics") == ["posts", "tag_topic"]
    assert "joins" not in index(made, "topics")
    assert [one.tables[0] for one in made.indexes] == ["topics"]
    assert made.left_out["dialog_messages"] == "belongs to what few persons may see"


def test_pages_with_titles_and_texts_are_no_parts_of_a_wiki_that_has_none(propose):
    wiki_pages = many(13, wiki_id=cycle(5), title="Page {n} of the mill", text=TEXT)
    made = propose({"wikis": many(5, name="Wiki {n} of the mill"), "wiki_pages": wiki_pages})
    assert [one.tables[0] for one in made.indexes] == ["wiki_pages"]


def test_one_row_with_a_few_words_is_nothing_to_look_for(propose):
    made = propose({"pages": pages(), "offers": many(1, name="Autumn", description="For the first year")})
    assert [one.tables[0] for one in made.indexes] == ["pages"]


BLOCKS = [(n * 10 + k, n, f"<p>{PROSE}, in block {n} {k}</p>") for n in range(1, 13) for k in range(3)]
KIND = {"content_type_id": "INTEGER REFERENCES kinds(id)"}
CMS = {
    "kinds": ("id INTEGER PRIMARY KEY, app TEXT, model TEXT", [(7, "cms", "page"), (8, "shop", "product")]),
    "page": many(12, title="Page {n} of the mill", login_required=lambda n: int(n == 4)),
    "place": many(12, slot="content", content_type_id=7, object_id=itself, kinds=KIND),
    "block": ("id INTEGER PRIMARY KEY, place_id INTEGER REFERENCES place(id), created_at TIMESTAMP",
              [(key, n, None) for key, n, _ in BLOCKS]),
    "text_block": ("block_ptr_id INTEGER PRIMARY KEY REFERENCES block(id), body TEXT",
                   [(key, text) for key, _, text in BLOCKS]),
    "version": many(12, state=lambda n: "draft" if n == 5 else "published", content_type_id=7, object_id=itself,
                    kinds=KIND),
    "page_permission": many(1, page_id=6, group_id=1, can_view=1),
}  # fmt: skip


def test_blocks_are_parts_of_the_page_that_their_place_is_of(propose):
    """Left out are pages for members, drafts by a table of versions, and those with permissions."""
    made = propose(CMS)
    assert [one.tables[0] for one in made.indexes] == ["page"]
    (part,) = index(made, "page")["parts"]
    assert (part["table"], part["on"], part["text"]) == ("text_block", {"place.object_id": "id"}, ["body"])
    assert part["joins"] == {
        "block": {"table": "block", "on": {"id": "block_ptr_id"}, "required": True},
        "place": {"table": "place", "on": {"id": "block.place_id"}, "required": True, "where": "content_type_id = 7"},
    }
    assert shown(propose, made, "page") == keys(12, "456")


def test_permissions_by_type_hide_the_few_rows_that_have_some(propose):
    permissions = "id INTEGER PRIMARY KEY, entity_id INTEGER, entity_type TEXT, role_id INTEGER"
    rows = [(1, 3, "page", 1), (2, 3, "page", 2), (3, 9, "book", 1)]
    made = propose({"pages": pages("maker TEXT", ["ACME"]), "entity_permissions": (permissions, rows)})
    assert shown(propose, made, "pages") == keys(12, "3")


def test_json_for_programs_and_links_of_two_tables_are_nothing_to_read(propose):
    made = propose(
        {
            "pages": pages("rules JSON", ['{"minimum": "12 pieces", "operator": "or"}']),
            "tags": many(3, name="Tag {n}"),
            "page_tag": many(12, page_id=itself, tag_id=cycle(3), position=itself),
            "page_tag_note": many(12, page_tag_id=itself, note=f"Noted by {{n}}: {PROSE}"),
        }
    )
    assert "page_tag" not in [one.tables[0] for one in made.indexes]
    assert index(made, "pages")["text"] == ["body"]


def test_a_flag_of_the_comments_hides_no_page(propose):
    code = {"code": lambda n: ("ANSWER", "MSG_PRIVATE")[n % 5 == 0]}
    comments = many(29, page_id=cycle(12), body=f"{{n}} says: {PROSE}", **code)
    made = propose({"pages": pages("comments_hidden INTEGER", [1, 0]), "comments": comments})
    assert len(shown(propose, made, "pages")) == 12
    assert index(made, "pages")["parts"][0]["where"] == "code IN ('ANSWER')"


def test_long_notes_of_a_visit_are_documents_and_hidden_with_it(propose):
    visits = many(24, ward="east", deleted_at=lambda n: DAY if n == 3 else None, kinds={"deleted_at": "TIMESTAMP"})
    note = {"record_type": "Visit", "record_id": cycle(24), "content": f"{{n}}. {PROSE}. {PROSE}"}
    made = propose({"visits": visits, "notes": many(48, **note)})
    assert shown(propose, made, "notes") == keys(48, ["2", "26"])


def test_tasks_are_shown_though_they_are_done_and_an_office_alone_sees_some_remarks(propose):
    """A short word may name a table, and a limit or an owner names none. A box may be in no dashboard."""
    task = {"name": "Task {n} of the mill", "body": TEXT}
    task |= {"is_active": lambda n: n % 3, "access": lambda n: 1 + (n == 5)}
    said = {"visibility": lambda n: ("app-user", "app-admin")[n % 7 == 0], "display_to_customer": lambda n: n % 2}
    box = {"task_limit": itself, "hide_in_dashboard": lambda n: int(n == 2)}
    made = propose(
        {
            "users": many(8, username="user {n}", password="x"),
            "categories": many(4, title="Category {n}"),
            "lanes": many(8, name="Lane {n}", is_active=lambda n: int(n != 8)),
            "boxes": many(4, title="Box {n}", **box),
            "tasks": many(30, catid=cycle(4), box_id=cycle(4), owner_id=cycle(8), **task),
            "comments": many(60, task_id=cycle(30), body=f"{{n}}: {PROSE}", **said),
        }
    )  # fmt: skip
    tasks = index(made, "tasks")
    assert {join["table"] for join in tasks["joins"].values()} == {"categories", "boxes"}
    assert shown(propose, made, "tasks") == keys(30, "5")
    assert tasks["parts"][0]["where"] == "visibility NOT IN ('app-admin') AND display_to_customer = 1"


def test_a_main_table_called_content_is_no_text_of_others(propose):
    said = [f"{n} times a day {PROSE}" for n in range(13)]
    links = [(n + 50, f"Page {n} of the mill", f"{said[n][:80]} …") for n in range(1, 13)]
    made = propose(
        {
            "app_content": many(12, title="Page {n} of the mill", body=lambda n: said[n], catid=cycle(3)),
            "app_category": many(3, title="Category {n}"),
            "app_content_front": many(5, "content_id", ordering=itself),
            "app_finder_link": ("link_id INTEGER PRIMARY KEY, name TEXT, summary TEXT", links),
        }
    )
    assert [one.tables[0] for one in made.indexes] == ["app_content"]


def test_a_word_with_which_all_columns_begin_says_nothing_of_one(propose):
    remarks = many(40, "rev_id", rev_page=cycle(20), rev_body=TEXT)
    made = propose({"pages": pages(count=20), "remarks": remarks})
    assert parts(made, "pages") == ["remarks"]  # `rev` elsewhere stands for a number of a version


@pytest.mark.parametrize(("gone", "related"), [(6, True), (20, False)])
def test_a_few_rows_that_name_what_is_gone_are_no_doubt(propose, gone, related):
    remarks = many(40, page_id=lambda n: n % 20 + 1 if n > gone else 900 + n, body=TEXT)
    assert (parts(propose({"pages": pages(count=20), "remarks": remarks}), "pages") == ["remarks"]) is related


def test_what_has_one_row_for_each_row_of_another_is_hidden_with_it(propose):
    called = {"title": "Answer {n} of the mill", "answer_id": itself, "content_id": itself}
    published = {"published_at": lambda n: DAY if n < 12 else None}
    made = propose(
        {
            "help_answers": many(12, **published, kinds={"published_at": "DATETIME"}),
            "help_answer_translations": many(12, **called),
            "help_answer_translation_contents": many(12, body=TEXT),
        }
    )
    assert shown(propose, made, "help_answer_translations") == keys(12, ["12"])


def test_names_with_addresses_are_personal(propose):
    sender = "Bakers of the mill <baker{n}@mill.example>"
    articles = many(12, ticket_id=itself, **{"from": sender}, body=TEXT)
    made = propose({"tickets": many(12, title="Ticket {n} of it"), "articles": articles})
    assert index(made, "tickets")["parts"][0]["text"] == ["body"]
    assert made.personal["articles"] == ["from"]


def test_discussions_are_documents_though_they_belong_to_a_forum_of_a_course(propose):
    made = propose(
        {
            "course": many(5, fullname="Course {n} of milling", summary=TEXT),
            "forum": many(6, course=cycle(5), name="Announcements", intro=TEXT),
            "forum_discussions": many(30, course=cycle(5), forum=cycle(6), name="Question {n} on it"),
            "forum_posts": many(60, discussion=cycle(30), message=TEXT),
        }
    )
    assert parts(made, "forum_discussions") == ["forum_posts"]
    assert parts(made, "course") == []
    assert index(made, "course")["title"] == "fullname"


def test_messages_with_a_recipient_are_correspondence(propose):
    made = propose({"messages": many(20, useridfrom=cycle(5), useridto=cycle(4), body=TEXT), "pages": pages()})
    assert "between persons" in made.left_out["messages"]


def test_posts_of_a_kind_that_few_have_are_not_for_all(propose):
    kinds = many(40, topic_id=cycle(20), body=TEXT, post_type=lambda n: 4 if n == 7 else 1)
    made = propose({"topics": many(20, title="Topic {n} of the mill"), "posts": kinds})
    assert PROSE + " 7" not in "".join(map(str, documents(propose, made, "topics").values()))


def test_a_column_called_after_two_words_names_no_row_of_the_first_alone(propose):
    made = propose(
        {
            "ticket_article_types": names("mail", "web", "phone"),
            "tickets": many(20, title="Ticket {n} of it", create_article_type_id=cycle(3)),
            "ticket_articles": many(40, ticket_id=cycle(20), subject="Words {n} on it", body=TEXT, type_id=cycle(3)),
        }
    )
    assert parts(made, "tickets") == ["ticket_articles"]
    assert [one["table"] for one in index(made, "tickets")["joins"].values()] == ["ticket_article_types"]


def test_model_and_res_id_name_a_row_of_any_table(propose):
    message = {"model": lambda n: "crm.lead" if n % 2 else "project.task", "res_id": cycle(20)}
    made = propose(
        {
            "project_task": many(20, name="Task {n} of the mill", description=TEXT, type="task"),
            "crm_lead": many(20, name="Lead {n} of the mill", description=TEXT),
            "mail_message": many(40, **message, record_name="It {n}", body=TEXT),
        }
    )
    assert [parts(made, name) for name in ("project_task", "crm_lead")] == [["mail_message"]] * 2


def test_a_column_without_the_word_type_says_of_which_table_a_row_is_if_several_values_do(propose):
    beside = {"area": lambda n: "page" if n % 2 else "book", "item_id": cycle(20)}
    remarks = many(40, **beside, body=TEXT)
    made = propose({"pages": pages(count=20), "books": pages(count=20), "remarks": remarks})
    assert [parts(made, name) for name in ("pages", "books")] == [["remarks"]] * 2


def test_rows_that_are_for_fewer_than_most_are_left_out(propose):
    levels = names("standard", "restricted", "wall")
    made = propose({"confidentiality_levels": levels, "pages": pages("confidentiality_level_id INTEGER", [3, 1])})
    assert shown(propose, made, "pages") == keys(12, "1")


def test_an_article_about_what_is_internal_is_not_hidden(propose):
    titles = {"title": lambda n: "Print confidential documents" if n == 3 else f"Article {n} of it"}
    made = propose({"articles": many(12, **titles, body=TEXT), "remarks": many(12, article_id=itself, body=TEXT)})
    assert shown(propose, made, "articles") == keys(12)


def test_a_confidential_issue_does_not_hide_what_it_is_linked_with(propose):
    made = propose(
        {
            "issues": many(20, title="Issue {n} of it", description=TEXT, confidential=lambda n: int(n == 5)),
            "changes": many(20, title="Change {n} of it", description=TEXT),
            "changes_closing_issues": many(20, issue_id=itself, change_id=itself),
        }
    )
    assert shown(propose, made, "changes") == keys(20)


def test_the_thread_of_a_ticket_is_found_by_a_letter_and_notes_of_those_who_answer_are_left_out(propose):
    of = {"object_id": lambda n: n if n <= 20 else n - 20, "object_type": lambda n: "T" if n <= 20 else "A"}
    entry = {"thread_id": lambda n: (n - 1) // 3 + 1, "type": lambda n: "MRN"[n % 3]}
    made = propose(
        {
            "ticket": many(20, "ticket_id", number=lambda n: f"{n:06}"),
            "ticket__cdata": many(20, "ticket_id", subject="Ticket {n} of the mill"),
            "thread": many(25, **of),
            "thread_entry": many(75, **entry, body=TEXT),
        }
    )
    texts = documents(propose, made, "ticket")
    assert len(texts) == 20
    assert ["1" in str(texts["1"]), f"{PROSE} 2" in str(texts["1"])] == [True, False]  # the second is a note


def test_components_of_an_article_are_in_it(propose):
    link = {"entity_id": lambda n: (n + 1) // 2, "component_id": lambda n: (n + 1) // 2, "order": lambda n: n % 2}
    kind = {"component_type": lambda n: "shared.step" if n % 2 else "shared.quote"}
    made = propose(
        {
            "articles": many(12, title="Article {n} of the mill", published_at=DAY, kinds={"published_at": "DATETIME"}),
            "components_shared_steps": many(12, instruction=TEXT),
            "components_shared_quotes": many(12, words="Said by the miller, and it was number {n} of all"),
            "articles_components": many(24, **link, **kind),
        }
    )
    assert [one.tables[0] for one in made.indexes] == ["articles"]
    text = documents(propose, made, "articles")["3"]
    assert [f"{PROSE} 3" in text, "number 3 of" in text, "number 4 of" in text] == [True, True, False]


def test_a_permission_for_the_page_above_all_hides_none(propose):
    tree = {"path": lambda n: "0001" if n == 1 else f"0001{n:04}"}
    made = propose(
        {
            "page": many(12, title="Page {n} of the mill", body=TEXT, **tree),
            "grouppagepermission": many(3, page_id=1, group_id=itself),
            "pageviewrestriction": many(1, page_id=7),
        }
    )
    assert shown(propose, made, "page") == keys(12, ["7"])


def test_one_statement_reads_a_small_table(propose):
    read = []

    def listen(connection, cursor, statement, *_):
        read.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", listen)
    try:
        propose({"pages": pages(), "books": pages(count=301)})
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", listen)
    assert sum("FROM pages" in one for one in read) == 1
    assert sum("FROM books" in one for one in read) > 1


def test_a_number_of_posts_names_no_post(propose):
    topics = many(20, "topic_id", topic_title="Topic {n} of the mill", topic_posts_approved=cycle(9))
    posts = many(60, topic_id=cycle(20), post_subject="Words {n} on it", post_text=TEXT)
    made = propose({"topics": topics, "posts": posts})
    assert parts(made, "topics") == ["posts"]
