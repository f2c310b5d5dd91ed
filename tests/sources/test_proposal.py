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
PAST, FUTURE = 1_600_000_000, 4_000_000_000


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


def index(proposal, table):
    return next(one for one in proposal.indexes if one.tables[0] == table).settings


def shown(propose, proposal, table):
    """Return the keys of the documents that the proposed settings give."""
    settings = {"name": "one", **index(proposal, table)}
    made = Settings(source={"url": str(propose.url)}, indexes=[settings])
    source = open_source(made, made.indexes[0])
    try:
        return set(source.page(None, 500).documents.keys)
    finally:
        source.close()


def pages(extra, values, count=12):
    """Return a table of pages with a column that has these values, and then nothing but the last one."""
    rows = [(n, f"Page {n} of the mill", f"{PROSE} {n}", values[min(n, len(values)) - 1]) for n in range(1, count + 1)]
    return f"id INTEGER PRIMARY KEY, title TEXT, body TEXT, {extra}", rows


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
            "visit": ("visit_id INTEGER PRIMARY KEY, visit_type INTEGER, title TEXT, report TEXT",
                      [(n, n % 3 + 1, f"Visit {n} of the mill", f"{PROSE} {n}") for n in range(1, 31)]),
            "visit_type": ("visit_type_id INTEGER PRIMARY KEY, name TEXT, description TEXT",
                           [(1, "First visit", PROSE), (2, "Second visit", PROSE), (3, "Third visit", PROSE)]),
            "gate": ("id INTEGER PRIMARY KEY, name TEXT, description TEXT",
                     [(n, f"Gate no. {n} of the mill", f"{PROSE} {n}") for n in range(1, 31)]),
        }
    )  # fmt: skip
    visit = index(made, "visit")
    assert "parts" not in visit
    assert visit["joins"]["visit_type_2"]["table"] == "visit_type"
    assert "joins" not in index(made, "gate")


def test_a_table_whose_composite_key_few_rows_have_contains_no_rows(propose):
    made = propose(
        {
            "posts": ("id INTEGER PRIMARY KEY, user_id INTEGER, channel_id INTEGER, message TEXT",
                      [(n, n % 5 + 1, n % 7 + 1, f"{PROSE} {n}") for n in range(1, 31)]),
            "notes": ("user_id INTEGER, channel_id INTEGER, note TEXT, hidden INT, PRIMARY KEY (user_id, channel_id)",
                      [(2, 2, PROSE, 0), (2, 9, PROSE, 1), (3, 9, PROSE, 1)]),
        }
    )  # fmt: skip
    assert "joins" not in index(made, "posts")


def test_an_id_may_be_written_together_with_its_noun_and_a_flag_is_none(propose):
    made = propose(
        {
            "entries": pages("maker TEXT", ["ACME"]),
            "entry_remarks": ("id INTEGER PRIMARY KEY, entryid INTEGER, body TEXT, latest INTEGER",
                              [(n, n % 12 + 1, f"{PROSE} {n}", n % 2) for n in range(1, 31)]),
            "entry_versions": ("id INTEGER PRIMARY KEY, entryid INTEGER, content TEXT",
                               [(n, n % 12 + 1, f"{PROSE} {n}") for n in range(1, 31)]),
        }
    )  # fmt: skip
    (part,) = index(made, "entries")["parts"]
    assert (part["table"], part["on"]) == ("entry_remarks", "entryid")
    assert made.left_out["entry_versions"] == "holds older versions of rows"


def test_random_ids_are_no_secrets_and_no_order(propose):
    ids = [f"q7w{n:02d}e9r8t1y5u3i2o6p4a7s" for n in range(13)]
    pages = [(ids[n], f"Page {n} of the mill", f"{PROSE} {n}") for n in range(1, 13)]
    remarks = [(ids[n], ids[13 - n], f"Said: {PROSE} {n}", n) for n in range(1, 13)]
    made = propose(
        {
            "pages": ("id TEXT PRIMARY KEY, title TEXT, body TEXT", pages),
            "remarks": ("id TEXT PRIMARY KEY, page_id TEXT, body TEXT, create_at INTEGER", remarks),
        }
    )
    assert (made.secrets, index(made, "pages")["key"]) == ({}, "id")
    assert index(made, "pages")["parts"][0]["order_by"] == ["create_at", "id"]


def test_of_two_tables_of_pages_the_one_called_like_the_remarks_has_them(propose):
    """Pages of a wiki without a name stay documents, though few and short, and though it might have a text one day."""
    short = [(n, f"Page {n} of the mill", f"Words about it {n}", n % 3 + 1) for n in range(1, 26)]
    made = propose(
        {
            "pages": pages("maker TEXT", ["ACME"], count=23),
            "wikis": ("id INTEGER PRIMARY KEY, description TEXT", [(1, None), (2, None), (3, None)]),
            "wiki_pages": ("id INTEGER PRIMARY KEY, title TEXT, body TEXT, wikiid INTEGER", short),
            "wiki_versions": ("id INTEGER PRIMARY KEY, pageid INTEGER, content TEXT",
                              [(n, n % 25 + 1, f"Words {n}") for n in range(1, 51)]),
            "wiki_remarks": ("id INTEGER PRIMARY KEY, pageid INTEGER, body TEXT",
                             [(n, n % 25 + 1, f"{PROSE} {n}") for n in range(1, 51)]),
        }
    )  # fmt: skip
    assert "parts" not in index(made, "pages")
    assert [part["table"] for part in index(made, "wiki_pages")["parts"]] == ["wiki_remarks"]


def test_versions_do_not_make_a_container_of_what_they_are_of(propose):
    short = [(n, f"Page {n} of the mill", f"Words about it {n}") for n in range(1, 13)]
    versions = [(n, n % 12 + 1, f"Words {n}") for n in range(1, 25)]
    made = propose(
        {
            "pages": ("id INTEGER PRIMARY KEY, title TEXT, body TEXT", short),
            "page_versions": ("id INTEGER PRIMARY KEY, page_id INTEGER, content TEXT", versions),
        }
    )
    assert len(shown(propose, made, "pages")) == 12


def test_a_part_whose_document_is_left_out_becomes_a_document(propose):
    tables = {
        "ticket": ("id INTEGER PRIMARY KEY, subject TEXT", [(n, f"The mill is silent {n}") for n in range(1, 13)]),
        "remark": ("id INTEGER PRIMARY KEY, ticket_id INTEGER, body TEXT",
                   [(n, n % 12 + 1, f"{PROSE} {n}") for n in range(1, 31)]),
    }  # fmt: skip
    made = propose(tables, include=["remark"])
    assert [one.tables[0] for one in made.indexes] == ["remark"]
    assert made.left_out["ticket"] == "is not included"


@pytest.mark.parametrize("project_id", [2, 0, None])
def test_rows_are_hidden_with_what_contains_them_if_each_names_one(propose, project_id):
    """0 names no row: such rows would be lost."""
    public = {str(n) for n in range(1, 31) if n % 3 + 1 != 2}
    projects = [(1, "Mill", 1), (2, "Secret weir", 0), (3, "Lock", 1)]
    wikis = [(n, n) for n in (1, 2, 3)]
    rows = [(n, f"Page {n} of the mill", f"{PROSE} {n}", n % 3 + 1) for n in range(1, 31)]
    tickets = [(n, f"Ticket {n} of the mill", f"{PROSE} {n}", n % 3 + 1 if n > 1 else project_id) for n in range(1, 31)]
    made = propose(
        {
            "projects": ("id INTEGER PRIMARY KEY, name TEXT, is_public INTEGER", projects),
            "wikis": ("id INTEGER PRIMARY KEY, project_id INTEGER", wikis),
            "wiki_pages": ("id INTEGER PRIMARY KEY, title TEXT, body TEXT, wiki_id INTEGER", rows),
            "members": ("id INTEGER PRIMARY KEY, project_id INTEGER", wikis),
            "tickets": ("id INTEGER PRIMARY KEY, subject TEXT, body TEXT, project_id INTEGER", tickets),
        }
    )
    assert shown(propose, made, "wiki_pages") == public
    assert shown(propose, made, "tickets") == (public if project_id else {str(n) for n in range(1, 31)})


def test_a_label_comes_with_its_value_unless_the_link_is_deleted(propose):
    made = propose(
        {
            "devices": pages("maker TEXT", ["ACME"]),
            "fields": ("id INTEGER PRIMARY KEY, name TEXT", [(1, "Colour"), (2, "Voltage")]),
            "field_values": ("id INTEGER PRIMARY KEY, device_id INTEGER, field_id INTEGER, value TEXT, deleted INTEGER",
                             [(n, n, n % 2 + 1, f"v{n}", n == 4) for n in range(1, 13)]),
        }
    )  # fmt: skip
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
        (
            "start_time INTEGER, end_time INTEGER GENERATED ALWAYS AS (CASE id WHEN 1 THEN 1500000000 ELSE 0 END)",
            [PAST],
            set(),
        ),
        ("privatereplyto INTEGER NOT NULL", [7, 0], {1}),
        ("type TEXT NOT NULL", ["P", "D", "P", "D", "O"], {1, 2, 3, 4}),
        ("publish_up DATETIME", ["2099-01-01 00:00:00", "2020-01-01 00:00:00", None], {1}),
        ("published_until DATETIME", ["2020-01-01 00:00:00", "2080-01-01 00:00:00", None], {1}),
        ("valid_to DATETIME", ["2020-01-01 00:00:00", "9999-12-31 00:00:00"], {1}),
        ("start_date DATETIME", ["2099-01-01 00:00:00", None], set()),
        ("begin_date DATETIME, end_date DATETIME GENERATED ALWAYS AS (NULL)", ["2099-01-01 00:00:00", None], {1}),
        ("fe_group TEXT NOT NULL", ["2", "", "0"], {1}),
        ("user_group INTEGER NOT NULL", [0, 3, 2], set()),
        ("read INTEGER NOT NULL", [1, 0], set()),
        ("personal INTEGER NOT NULL", [1, 0], {1}),
    ],
)
def test_rows_that_may_not_be_shown_are_no_documents(propose, column, values, hidden):
    made = propose({"pages": pages(column, values)})
    assert shown(propose, made, "pages") == {str(n) for n in range(1, 13) if n not in hidden}


@pytest.mark.parametrize(("kind", "key"), [("itemtype", "items_id"), ("object_type", "object_id")])
def test_remarks_belong_to_what_their_type_and_id_say(propose, kind, key):
    remarks = [(n, ["Page", "Machine"][n % 2], n % 9 + 1, f"{PROSE} in hour {n}") for n in range(40)]
    columns = f"id INTEGER PRIMARY KEY, {kind} TEXT NOT NULL, {key} INTEGER NOT NULL, content TEXT"
    machines = "id INTEGER PRIMARY KEY, name TEXT", [(n, f"Wheel {n}") for n in range(1, 12)]
    made = propose({"w_pages": pages("x INTEGER", [0]), "w_remarks": (columns, remarks), "w_machines": machines})
    (part,) = index(made, "w_pages")["parts"]
    assert (part["table"], part["on"], part["where"]) == ("w_remarks", key, f"{kind} = 'Page'")


def test_tags_belong_to_what_a_row_of_another_table_says_and_an_id(propose):
    """The number of a page is that of a machine, too: the type tells which is meant, by the name of its row."""
    types = [(3, "mill", "page"), (5, "mill", "machine")]
    links = [
        (n, n % 2 + 1, [3, 5][n % 2], n % 9 + 1, 1, "2024-01-01 00:00:00", "2024-01-01 00:00:00") for n in range(40)
    ]
    columns = "id INTEGER PRIMARY KEY, tag_id INTEGER, content_type_id INTEGER, object_id INTEGER, creator INTEGER"
    made = propose(
        {
            "mill_page": pages("x INTEGER", [0]),
            "mill_machine": pages("x INTEGER", [0]),
            "content_type": ("id INTEGER PRIMARY KEY, app_label TEXT, model TEXT", types),
            "tags": ("id INTEGER PRIMARY KEY, name TEXT", [(1, "Water wheels"), (2, "Bakers at night")]),
            "tag_links": (f"{columns}, created DATETIME, changed DATETIME", links),
        }
    )
    for table, number in (("mill_page", 3), ("mill_machine", 5)):
        (part,) = index(made, table)["parts"]
        assert (part["table"], part["on"]) == ("tag_links", "object_id")
        assert (part["where"], part["text"]) == (f"content_type_id = {number}", "{tags.name}")


def test_the_notes_of_one_person_are_left_out(propose):
    made = propose({"reminders": pages("x INTEGER", [0]), "pages": pages("x INTEGER", [0])})
    assert made.left_out["reminders"] == "holds messages between persons, notes of one, or drafts"


def test_messages_of_conversations_between_persons_are_left_out(propose):
    """Where a conversation is no conversation of messages, it may be one with customers."""
    messages = [(n, n % 12 + 1, f"{PROSE} in hour {n}") for n in range(36)]
    talks = {"conversations": pages("x INTEGER", [0]), "message_conversations": pages("x INTEGER", [0])}
    talks["message_conversations"] = (talks["conversations"][0], [(n, f"Talk {n}", f"Hush! {n}", 0) for n in range(12)])
    columns = "id INTEGER PRIMARY KEY, {} INTEGER, fullmessage TEXT"
    made = propose(
        {
            **talks,
            "messages": (columns.format("message_conversation_id"), messages),
            "replies": (columns.format("conversation_id"), messages),
        }
    )
    assert made.left_out["messages"] == "belongs to what few persons may see"
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
    made = propose(
        {
            "mdl_page": pages("x INTEGER", [0]),
            "mdl_book": pages("x INTEGER", [0]),
            "mdl_modules": ("id INTEGER PRIMARY KEY, name TEXT", [(4, "book"), (5, "page")]),
            "mdl_course_modules": (
                "id INTEGER PRIMARY KEY, module INTEGER, instance INTEGER, visible INTEGER NOT NULL", places + others),
        }
    )  # fmt: skip
    assert len(shown(propose, made, "mdl_page")) == (11 if hides else 12)
    assert "8" not in shown(propose, made, "mdl_book")


def test_pages_below_a_hidden_one_are_hidden_at_any_depth(propose):
    rows = [(n, n - 1 if n > 5 else 0, n == 8, f"Page {n} of the mill", f"{PROSE} {n}") for n in range(1, 13)]
    columns = "id INTEGER PRIMARY KEY, pid INTEGER NOT NULL, hidden INTEGER NOT NULL, title TEXT, body TEXT"
    assert shown(propose, propose({"pages": (columns, rows)}), "pages") == set("1234567")


def test_a_table_of_which_all_rows_are_hidden_is_left_out(propose):
    made = propose({"memos": pages("personal INTEGER", [1], count=2), "pages": pages("hidden INTEGER", [0])})
    assert made.left_out["memos"] == "has no row that may be shown: personal says who may see a row"


def test_a_person_is_called_by_its_name_and_not_by_its_profession(propose):
    people = [(n, f"Ann{n}", f"Miller{n}", "Clerk" if n % 2 else "Head of sales", f"{PROSE} {n}") for n in range(1, 13)]
    made = propose(
        {"contacts": ("id INTEGER PRIMARY KEY, FirstName TEXT, LastName TEXT, Title TEXT, Notes TEXT", people)}
    )
    assert index(made, "contacts")["title"] == "{FirstName} {LastName}"


def test_what_an_order_names_is_no_label_of_a_product_that_it_contains(propose):
    made = propose(
        {
            "products": pages("maker TEXT", ["ACME"]),
            "shippers": ("id INTEGER PRIMARY KEY, name TEXT", [(1, "Speedy express"), (2, "Slow boat")]),
            "orders": ("id INTEGER PRIMARY KEY, shipper_id INTEGER, ordered_on DATETIME",
                       [(n, n % 2 + 1, "2024-01-01 00:00:00") for n in range(1, 31)]),
            "order_lines": ("order_id INTEGER, product_id INTEGER, PRIMARY KEY (order_id, product_id)",
                            [(n, n % 12 + 1) for n in range(1, 31)]),
        }
    )  # fmt: skip
    assert "parts" not in index(made, "products")


@pytest.mark.parametrize(
    ("table", "name"), [("Aufträge", "auftrage"), ("订单", "ding-dan"), ("__x__y", "x-y"), ("#", "index")]
)
def test_an_index_is_called_like_its_table_in_letters_that_names_may_have(propose, table, name):
    [page] = propose({table: pages("note TEXT", [None])}).indexes
    assert page.name == name


def test_names_without_letters_are_names(propose):
    columns = '"#" INTEGER PRIMARY KEY, "%" TEXT, "!" INTEGER, title TEXT, body TEXT'
    rows = [(n, "ab"[n % 2], n, f"Page {n} of the mill", f"{PROSE} {n}") for n in range(1, 13)]
    assert index(propose({"_": (columns, rows)}), "_")["key"] == "#"


def test_a_table_of_labels_may_begin_with_a_digit(propose):
    links = [(n, n % 2 + 1) for n in range(1, 13)]
    tables = {
        "pages": pages("x INTEGER", [0]),
        "3d_tags": ("id INTEGER PRIMARY KEY, name TEXT", [(1, "Water wheels"), (2, "Bakers")]),
        "page_tags": ("page_id INTEGER, tag_id INTEGER, PRIMARY KEY (page_id, tag_id)", links),
    }
    made = propose(tables)
    assert [*index(made, "pages")["parts"][0]["joins"]] == ["label_3d_tags"]
    assert len(shown(propose, made, "pages")) == 12


@pytest.mark.parametrize(
    ("kind", "values"), [("INTEGER", [4, 3, 3, 1]), ("CHAR(1)", ["R", "N", "N", "M"])], ids=["numbers", "letters"]
)
def test_codes_that_may_hide_rows_are_said_if_nothing_tells_what_they_mean(propose, kind, values):
    """A whisper among staff is of type 4, and a closing note of type 3; nothing in the schema says which is which."""
    made = propose({"pages": pages(f"page_type {kind}", values, 1200)})
    [page] = made.indexes
    assert "where" not in page.settings
    [said] = page.unclear
    assert said.startswith("pages: of ")
    assert f"page_type is {values[3]} in " in said
    assert f", {values[1]} in 2, {values[0]} in 1. If some" in said


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("page_type INTEGER", [1]),
        ("page_state INTEGER", [9, 1]),
        ("priority INTEGER", [1, 2]),
        ("page_type TEXT", ["post", "page"]),
    ],
    ids=["one value", "put away", "another name", "words"],
)
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
        names = [n if kind == "INTEGER" else f"no{n}" for n in range(13)]
        empty = {"TEXT": ""}.get(kind)
        rows = [
            (
                names[n],
                (called if above(n) else "Message {}").format(above(n) or n) if title == "title" else None,
                f"{PROSE} {n}",
                names[above(n)] if above(n) else empty,
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
    rows = [
        (n, f"Page {n} of the mill", f"{PROSE}. No. {n}.", f"<p>{PROSE}. <b>No.</b> {n}.</p>") for n in range(1, 13)
    ]
    made = propose({"pages": ("id INTEGER PRIMARY KEY, title TEXT, body TEXT, body_html TEXT", rows)})
    assert index(made, "pages")["text"] == ["body"]


def test_the_column_with_the_language_of_a_row_is_named_if_there_are_several(propose):
    several = index(propose({"page": pages("locale TEXT", ["en_GB", "de_DE"])}), "page")
    assert (sorted(several["language"]), several["language_column"]) == (["english", "german"], "locale")


def test_a_column_with_one_language_is_not_named(propose):
    one = index(propose({"page": pages("locale TEXT", ["de_DE"])}), "page")
    assert one["language"] == "german"
    assert "language_column" not in one


ACCOUNTS = (
    "uid INTEGER PRIMARY KEY, name TEXT, pass TEXT, mail TEXT, status INTEGER",
    [(n, f"Ann {n}", f"$2y$10$abcdefgh{n}", f"ann{n}@mill.example", n > 1) for n in range(1, 9)],
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
    tables["files"] = ("fid INTEGER PRIMARY KEY, uri TEXT, status INTEGER", [(n, f"/{n}.png", files) for n in range(9)])
    tables |= {"people": accounts} if accounts else {}
    made = propose(tables)
    page = next(one for one in made.indexes if one.tables[0] == "pages")
    assert page.settings.get("where") == ("status = 1" if hides else None)
    assert bool(page.unclear) is not hides
    assert len(shown(propose, made, "pages")) == (10 if hides else 12)


@pytest.mark.parametrize(("published", "where"), [("published_at", "archived_at IS NULL"), ("opened_at", None)])
def test_what_was_archived_after_it_was_published_is_not_out(propose, published, where):
    june = "2024-06-01 00:00:00"
    rows = [(n, f"Page {n}", f"{PROSE} {n}", "2024-05-01 00:00:00", june if n == 3 else None) for n in range(1, 13)]
    columns = f"id INTEGER PRIMARY KEY, title TEXT, body TEXT, {published} DATETIME, archived_at DATETIME"
    assert index(propose({"pages": (columns, rows)}), "pages").get("where") == where


def test_drafts_that_a_table_of_their_own_has_are_no_part(propose):
    drafts = [(n, n, f"{PROSE} perhaps {n}") for n in range(1, 13)]
    made = propose(
        {
            "tickets": pages("x INTEGER", [0]),
            "ticket_shared_draft_zooms": ("id INTEGER PRIMARY KEY, ticket_id INTEGER, new_article TEXT", drafts),
        }
    )
    assert "parts" not in index(made, "tickets")


def entities(*, extra=()):
    """Return the tables of pages in two languages, each with its versions, in the way of Drupal."""
    data = [(n, n, code, f"Page {n} {code}") for n in range(1, 13) for code in ("en", "de") if code == "en" or n < 4]
    text = [(n, 0, n, code, 0, f"<p>{PROSE} {n} {code}</p>") for n, _, code, _ in data]
    columns = "entity_id INTEGER, deleted INTEGER, revision_id INTEGER, langcode TEXT, delta INTEGER, body_value TEXT"
    others = {f"{name}_data": ("id INTEGER PRIMARY KEY", [(1,)]) for name in ("menu", "file", "term", "user", "block")}
    return others | {
        "node": ("nid INTEGER PRIMARY KEY, vid INTEGER, langcode TEXT", [(n, n, "en") for n in range(1, 13)]),
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


def test_a_document_in_each_language_has_the_texts_of_its_language(propose):
    made = propose(entities())
    page = index(made, "node_field_data")
    assert (page["key"], page["title"]) == (["nid", "langcode"], "title")
    body, values = page["parts"]
    assert (body["table"], body["on"]) == ("node__body", {"entity_id": "nid", "langcode": "langcode"})
    assert (values["table"], values["on"]) == ("node__field_parts", {"entity_id": "nid"})
    assert len(shown(propose, made, "node_field_data")) == 15
    assert [one.tables[0] for one in made.indexes] == ["node_field_data"]


def test_texts_in_a_language_that_has_no_document_belong_to_all(propose):
    made = propose(entities(extra=[(9, 0, 9, "fr", 0, f"<p>{PROSE} en français</p>")]))
    assert index(made, "node_field_data")["parts"][0]["on"] == {"entity_id": "nid"}


def test_older_versions_in_a_copy_of_a_table_are_left_out(propose):
    made = propose(entities())
    assert made.left_out["node_revision__body"] == "holds older versions of the rows of node__body"
    assert made.left_out["node_field_revision"] == "holds older versions of the rows of node_field_data"
    assert "node_revision__body" in str(propose({}, add=["node_revision__body"]).indexes)


DUMP = "---\n:inbound:\n  :host: imap{}.mill.example\n  :password: horse{}\n"


@pytest.mark.parametrize(("text", "found"), [(DUMP, False), ("---\ntitle: Mill {}\n---\n" + PROSE + " {}", True)])
def test_objects_that_a_program_wrote_as_yaml_are_no_text_and_front_matter_is(propose, text, found):
    rows = [(n, f"Channel {n} of the mill", text.format(n, n)) for n in range(1, 25)]
    made = propose({"channels": ("id INTEGER PRIMARY KEY, name TEXT, body TEXT", rows)})
    assert ("body" in str([one.settings.get("text") for one in made.indexes])) is found


@pytest.mark.parametrize(
    ("tasks", "is_part"), [(40, False), (8, True)], ids=["many for each project", "few for each project"]
)
def test_rows_with_titles_and_texts_are_documents_if_what_contains_them_contains_many(propose, tasks, is_part):
    projects = [(n, f"Mill {n}", PROSE) for n in range(1, 5)]
    rows = [(n, n % 4 + 1, f"Task no. {n} of the mill", f"{PROSE} {n}") for n in range(tasks)]
    columns = "id INTEGER PRIMARY KEY, project_id INTEGER, name TEXT, description TEXT"
    made = propose(
        {
            "project_project": ("id INTEGER PRIMARY KEY, name TEXT, description TEXT", projects),
            "project_task": (columns, rows),
        }
    )
    assert ("project_task" in made.left_out) is is_part


def test_orders_called_by_a_code_are_no_parts_of_a_customer(propose):
    orders = [(n, n % 12 + 1, f"SO/2024/{n:04}", f"{PROSE} {n}") for n in range(30)]
    made = propose(
        {
            "companies": pages("x INTEGER", [0]),
            "sale_orders": ("id INTEGER PRIMARY KEY, company_id INTEGER, name TEXT, note TEXT", orders),
        }
    )
    assert "name" in index(made, "sale_orders")["text"]


def test_texts_in_several_languages_in_one_value_have_no_keys_and_words_alone_are_titles(propose):
    rows = [(n, f'{{"en_US": "Chair{n}", "fr_FR": "Chaise{n}"}}', f'{{"en_US": "{PROSE} {n}"}}') for n in range(1, 13)]
    made = propose({"products": ("id INTEGER PRIMARY KEY, name JSON, description JSON", rows)})
    one = index(made, "products")
    assert (one["title"], one["text"], one["format"]["name"]) == ("name", ["description"], "json")


def test_a_number_that_orders_rows_names_none_of_a_table_of_that_name(propose):
    made = propose(
        {
            "products": pages("sequence INTEGER", [1]),
            "sequences_of_numbers": ("id INTEGER PRIMARY KEY, name TEXT", [(1, "Orders of the year"), (2, "Invoices")]),
            "number_sequence": ("id INTEGER PRIMARY KEY, name TEXT", [(1, "Orders of the year"), (2, "Invoices")]),
        }
    )
    assert "joins" not in index(made, "products")


def test_what_a_link_names_by_type_and_id_is_no_label(propose):
    """A follower of pages and machines: the number of a machine is that of a page, too."""
    links = [(n, n % 12 + 1, ["page", "machine"][n % 2], n % 12 + 1) for n in range(1, 40)]
    made = propose(
        {
            "firms": pages("x INTEGER", [0]),
            "pages": pages("x INTEGER", [0]),
            "machines": ("id INTEGER PRIMARY KEY, name TEXT", [(n, f"Wheel no. {n}") for n in range(1, 13)]),
            "followers": ("id INTEGER PRIMARY KEY, firm_id INTEGER, record_type TEXT, record_id INTEGER", links),
        }
    )
    assert "parts" not in index(made, "firms")


def test_tables_that_describe_the_tables_are_left_out(propose):
    names = ["sale.page", "sale.order", "sale.firm", "sale.machine", "mixin"]
    fields = [(n, n % 5 + 1, f"Field no. {n}", f"{PROSE} {n}") for n in range(30)]
    made = propose(
        {
            **{name.replace(".", "_"): pages("x INTEGER", [0]) for name in names[:4]},
            "ir_model": ("id INTEGER PRIMARY KEY, model TEXT, name TEXT, info TEXT",
                         [(n, name, f"Name of {n}", f"{PROSE} {n}") for n, name in enumerate(names, 1)]),
            "ir_model_fields": ("id INTEGER PRIMARY KEY, model_id INTEGER, name TEXT, help TEXT", fields),
        }
    )  # fmt: skip
    assert made.left_out["ir_model"] == made.left_out["ir_model_fields"] == "describes the tables of the application"


@pytest.mark.parametrize("name", ["mail.password", "mail.server"])
def test_names_of_settings_with_values_are_no_documents_however_many_columns_the_table_has(propose, name):
    rows = [(f"{name}.{n}", f"Wheel-{n}", f"{PROSE} {n}", *[f"Mill no. {n}"] * 5) for n in range(1, 13)]
    columns = "property TEXT PRIMARY KEY, property_value TEXT, description TEXT, a TEXT, b TEXT, c TEXT, d TEXT, e TEXT"
    made = propose({"mill_values": (columns, rows)})
    assert made.left_out["mill_values"] == "holds settings: names with values"


def test_a_meeting_with_a_password_and_the_id_of_a_user_is_no_account(propose):
    rows = [(n, f"Meeting no. {n}", f"{PROSE} {n}", n % 3 + 1, "s3cret-3" if n == 3 else None) for n in range(1, 13)]
    columns = "id INTEGER PRIMARY KEY, name TEXT, description TEXT, modified_user_id INTEGER, password TEXT"
    assert index(propose({"meetings": (columns, rows)}), "meetings")["where"] == "COALESCE(password, '') = ''"


def test_a_key_called_like_the_last_word_of_its_table_is_its_own(propose):
    sources = [(n, f"Source {n} of the mill", f"{PROSE} {n}") for n in range(1, 10)]
    made = propose(
        {
            "visit": ("id INTEGER PRIMARY KEY, title TEXT, report TEXT",
                      [(n, f"Visit {n} of the mill", f"{PROSE} {n}") for n in range(1, 31)]),
            "visit_paper_source": ("paper_source_id INTEGER PRIMARY KEY, name TEXT, description TEXT", sources),
        }
    )  # fmt: skip
    assert "parts" not in index(made, "visit")


def test_rows_are_called_by_what_tells_them_apart_and_not_by_a_job_that_many_have(propose):
    jobs = [f"{area} {what}" for area in ("Export", "Sales", "Order", "Head") for what in ("Administrator", "Manager")]
    rows = [(n, f"Mill {n} and sons", jobs[n % 8]) for n in range(1, 16)]
    made = propose({"suppliers": ("id INTEGER PRIMARY KEY, company_name TEXT, contact_title TEXT", rows)})
    assert (index(made, "suppliers")["title"], "where" in index(made, "suppliers")) == ("company_name", False)


def test_orders_called_by_names_that_many_of_them_have_are_no_labels(propose):
    orders = [(n, f"Mill no. {n % 12}", f"2024-03-{n:02} 10:00:00") for n in range(1, 29)]
    made = propose(
        {
            "products": pages("x INTEGER", [0]),
            "orders": ("id INTEGER PRIMARY KEY, ship_name TEXT, ordered_at TEXT", orders),
            "order_lines": ("product_id INTEGER, order_id INTEGER, pieces INTEGER, PRIMARY KEY (order_id, product_id)",
                            [(n % 12 + 1, n, n) for n in range(1, 29)]),
        }
    )  # fmt: skip
    assert "parts" not in index(made, "products")


def test_a_row_whose_key_is_that_of_another_row_is_a_part_of_that_one(propose):
    made = propose(
        {
            "drugs": pages("x INTEGER", [0]),
            "orders": pages("x INTEGER", [0]),
            "drug_orders": ("order_id INTEGER PRIMARY KEY REFERENCES orders(id), drug_id INTEGER, instructions TEXT",
                            [(n, n % 3 + 1, f"Take it as told: {PROSE} {n}") for n in range(1, 13)]),
        }
    )  # fmt: skip
    assert made.left_out["drug_orders"] == "is a part of orders"


def test_the_value_of_a_part_may_be_a_row_with_names_in_a_table_of_their_own(propose):
    names = [
        (n * 10 + number, n, f"{word} {'wheel' if n % 2 else 'sack'} {n}", locale, preferred, int(word == "Wrong"))
        for n in range(1, 13)
        for number, (word, locale, preferred) in enumerate(
            [("Small", "en", 0), ("Wrong", "en", 1), ("Big", "en", 1), ("Grand", "fr", 1)]
        )
    ]
    columns = "id INTEGER PRIMARY KEY, encounter_id INT, value_text TEXT, comments TEXT, value_coded INT"
    observed = [
        (n, n % 12 + 1, f"{PROSE} {n}", PROSE[:40] if n == 3 else None, n % 5 + 1 if n > 9 else None)
        for n in range(1, 60)
    ]
    made = propose(
        {
            "encounter": pages("x INTEGER", [0]),
            "concept": ("concept_id INTEGER PRIMARY KEY, kind INTEGER", [(n, n) for n in range(1, 13)]),
            "concept_name": ("id INT PRIMARY KEY, concept_id INT, name TEXT, locale TEXT, main INT, void INT", names),
            "obs": (f"{columns} REFERENCES concept(concept_id)", observed),
        }
    )  # fmt: skip
    settings = {"name": "one", **index(made, "encounter")}
    (part,) = settings["parts"]
    assert part["text"] == ["value_text", "comments", "value_coded_2.name"]  # comments are rare, and yet text
    engine = sa.create_engine(propose.url)
    where = part["joins"]["value_coded_2"]["where"]
    with engine.connect() as connection:
        shown = connection.exec_driver_sql(f"SELECT concept_id, name FROM concept_name WHERE {where}").all()
    engine.dispose()
    assert dict(shown)[3] == "Big wheel 3"
    assert len(shown) == 12


def test_what_was_retired_is_left_out_and_what_happened_there_is_not(propose):
    made = propose(
        {
            "wards": pages("retired INTEGER", [0, 1, 0]),
            "visits": ("id INTEGER PRIMARY KEY, ward_id INTEGER, title TEXT, report TEXT",
                       [(n, n % 3 + 1, f"Visit {n} of the mill", f"{PROSE} {n}") for n in range(1, 60)]),
        }
    )  # fmt: skip
    assert shown(propose, made, "wards") == {"1", *map(str, range(3, 13))}
    assert len(shown(propose, made, "visits")) == 59


@pytest.mark.parametrize(
    ("name", "title", "is_document"),
    [("category", "Wheel", True), ("page_type", "Wheel", False), ("word", None, False)],
)
def test_a_few_things_with_a_description_are_documents_and_kinds_are_none(propose, name, title, is_document):
    few = [(n, title and f"{title} {n}", f"Sacks, ropes and no. {n}") for n in range(1, 5)]
    made = propose(
        {
            "pages": pages(f"{name}_id INTEGER", [1, 2, 3, 4]),
            name: ("id INTEGER PRIMARY KEY, name TEXT, description TEXT", few),
        }
    )
    assert (name in made.left_out) is not is_document


@pytest.mark.parametrize("name", ["privileges", "capabilities"])
def test_what_a_role_may_do_is_for_programs(propose, name):
    assert propose({name: pages("x INTEGER", [0]), "page": pages("x INTEGER", [0])}).left_out[name].startswith("is for")


def test_what_a_category_of_its_name_contains_is_no_part_and_a_flag_may_be_one_word_with_is(propose):
    answers = [(n, n % 3 + 1, f"What is wheel no. {n}?", f"{PROSE} {n}", int(n == 7)) for n in range(1, 13)]
    made = propose(
        {
            "faq": ("faq_id INT PRIMARY KEY, category_id INT, question TEXT, answer TEXT, isprivate INT", answers),
            "faq_category": ("category_id INTEGER PRIMARY KEY, name TEXT, description TEXT",
                             [(n, f"Kind {n} of mill", f"About mill {n}") for n in range(1, 4)]),
        }
    )  # fmt: skip
    assert shown(propose, made, "faq") == {str(n) for n in range(1, 13) if n != 7}


def test_entries_with_titles_are_parts_of_a_thread_that_has_no_text(propose):
    entries = [(n, n % 12 + 1, f"Question no. {n}", f"{PROSE} {n}") for n in range(1, 37)]
    made = propose(
        {
            "thread": ("id INTEGER PRIMARY KEY, kind INTEGER", [(n, n) for n in range(1, 13)]),
            "thread_entry": ("id INTEGER PRIMARY KEY, thread_id INTEGER, title TEXT, body TEXT", entries),
        }
    )
    assert [part["table"] for part in index(made, "thread")["parts"]] == ["thread_entry"]


def wiki(prefix="tt:"):
    """Return the tables of a wiki in the way of MediaWiki: pages, versions, what they consist of, and texts."""
    texts = {n: f"{PROSE} {n}" for n in range(1, 41)}
    return {
        "page": ("page_id INTEGER PRIMARY KEY, page_title TEXT, page_latest INTEGER, page_is_redirect INTEGER",
                 [(n, f"Mill_of_{n}", 2 * n, int(n == 3)) for n in range(1, 21)]),
        "revision": ("rev_id INTEGER PRIMARY KEY, rev_page INTEGER, rev_minor_edit INTEGER, rev_sha1 TEXT",
                     [(n, (n + 1) // 2, n % 2, "") for n in texts]),
        "slots": ("slot_revision_id INT, role INT, slot_content_id INT, PRIMARY KEY (slot_revision_id, role)",
                  [(n, 1, n + 100) for n in texts]),
        "content": ("content_id INTEGER PRIMARY KEY, content_size INTEGER, content_address TEXT",
                    [(n + 100, 9, f"{prefix}{n + 500}") for n in texts]),
        "text": ("old_id INTEGER PRIMARY KEY, old_text TEXT, old_flags TEXT",
                 [(n + 500, text, "utf-8") for n, text in texts.items()]),
    }  # fmt: skip


def test_the_newest_text_of_a_page_is_found_by_a_table_of_links_and_an_address(propose):
    made = propose(wiki())
    assert [one.tables[0] for one in made.indexes] == ["page"]
    assert made.left_out["text"] == "holds the text of page"
    (part,) = index(made, "page")["parts"]
    assert part["on"] == {"slot_revision_id": "page_latest"}
    assert part["joins"]["text"]["on"] == {"tt:{old_id}": "content.content_address"}
    settings = Settings(source={"url": str(propose.url)}, indexes=[{"name": "one", **index(made, "page")}])
    source = open_source(settings, settings.indexes[0])
    found = source.page(None, 50).documents
    source.close()
    assert dict(zip(found.keys, found.texts, strict=True)) == {
        str(n): f"{PROSE} {2 * n}" for n in {*range(1, 21)} - {3}
    }


def test_an_address_of_texts_elsewhere_names_no_row(propose):
    assert propose(wiki("es:99")).left_out["text"].startswith("holds texts, and no column says of what they are")


def test_a_letter_that_says_who_may_see_a_row_is_no_text(propose):
    columns, rows = pages("link_visible TEXT", ["Y", "N", "Y"], 3)
    assert index(propose({"links": (columns, rows)}), "links")["text"] == ["body"]


def test_keys_of_programs_are_left_out_though_they_have_descriptions(propose):
    keys = [(n, f"The key of mill no. {n}", f"ck_{sha1(bytes([n])).hexdigest()}", f"{n:07x}") for n in range(1, 13)]
    tables = {
        "api_keys": ("id INTEGER PRIMARY KEY, description TEXT, consumer_key TEXT, truncated_key TEXT", keys),
        "pages": pages("x INTEGER", [0]),
    }
    assert propose(tables).left_out["api_keys"] == "holds keys"


def test_conversations_between_persons_are_hidden_with_their_type_and_what_is_in_a_hidden_category_too(propose):
    """Private topics have no category, which hides no other; a list of featured topics names categories as well."""
    kinds = ["regular"] * 9 + ["private_message"] * 3
    topics = [(n, f"Topic {n} of the mill", f"{PROSE} {n}", kind, None if kind != "regular" else n % 3 + 1)
              for n, kind in enumerate(kinds, 1)]  # fmt: skip
    made = propose(
        {
            "topic": ("id INTEGER PRIMARY KEY, title TEXT, body TEXT, archetype TEXT, category_id INTEGER", topics),
            "category": ("id INTEGER PRIMARY KEY, name TEXT, read_restricted INTEGER",
                         [(1, "Mills", 0), (2, "Wheels", 0), (3, "Bakers", 1)]),
            "category_topic": ("category_id INTEGER, topic_id INTEGER, PRIMARY KEY (category_id, topic_id)",
                               [(n % 3 + 1, n) for n in range(1, 10)]),
        }
    )  # fmt: skip
    assert shown(propose, made, "topic") == {str(n) for n in range(1, 10) if n % 3 != 2}


def test_a_channel_of_two_persons_is_hidden_though_there_are_few_channels(propose):
    messages = [(n, n % 3 + 1, f"{PROSE} {n}") for n in range(1, 31)]
    channels = [(1, "Mill talk", "CategoryChannel"), (2, "Wheel talk", "CategoryChannel")]
    made = propose(
        {
            "chat_message": ("id INTEGER PRIMARY KEY, chat_channel_id INTEGER, message TEXT", messages),
            "chat_channel": ("id INTEGER PRIMARY KEY, name TEXT, type TEXT",
                             [*channels, (3, None, "DirectMessageChannel")]),
        }
    )  # fmt: skip
    assert shown(propose, made, "chat_message") == {str(n) for n in range(1, 31) if n % 3 != 2}


def test_a_flag_for_what_can_be_done_with_a_row_hides_none(propose):
    made = propose(
        {"posts": pages("comments_enabled INTEGER", [0, 1, 0]), "boards": pages("board_enabled INTEGER", [1, 0, 1])}
    )
    assert len(shown(propose, made, "posts")) == 12
    assert len(shown(propose, made, "boards")) == 11


def shop():
    """Return the tables of a shop whose products have texts by language and by shop, in the way of PrestaShop."""
    both = [(n, 1, language) for n in range(1, 13) for language in (1, 2)]
    value_key, key = "PRIMARY KEY (id_feature_value, id_lang)", "PRIMARY KEY ({}, id_shop, id_lang)".format
    texts = "id_product INT, id_shop INT, id_lang INT, name TEXT, meta_title TEXT, description TEXT, "
    return {
        "ps_product": ("id_product INTEGER PRIMARY KEY, id_shop_default INT, reference TEXT, state INT, active INT",
                       [(n, 1, f"MW-{n:03}", 1, int(n != 7)) for n in range(1, 13)]),
        "ps_product_lang": (texts + key("id_product"),
                            [(*one, f"Wheel of mill {one[0]}", f"Buy {one[0]} now", f"{PROSE} {one}") for one in both]),
        "ps_product_comment": ("id_product_comment INTEGER PRIMARY KEY, id_product INT, title TEXT, content TEXT",
                               [(n, n % 12 + 1, "Good", f"{PROSE}, says buyer {n}") for n in range(1, 31)]),
        "ps_carrier": ("id_carrier INTEGER PRIMARY KEY, name TEXT", [(1, "Cart"), (2, "Post")]),
        "ps_carrier_lang": (f"id_carrier INT, id_shop INT, id_lang INT, delay TEXT, {key('id_carrier')}",
                            [(n, 1, k, "In two days") for n in (1, 2) for k in (1, 2)]),
        "ps_orders": ("id_order INTEGER PRIMARY KEY, id_carrier INT, id_shop INT, id_lang INT, gift_message TEXT",
                      [(n, 1 + n % 2, 1, 1 + n % 2, f"{PROSE} {n}") for n in range(1, 31)]),
        "ps_order_state": ("id_order_state INTEGER PRIMARY KEY, name TEXT, hidden INT",
                           [(1, "Is paid", 1), (2, "Is sent", 0)]),
        "ps_lang": ("id_lang INTEGER PRIMARY KEY, name TEXT, iso_code TEXT",
                    [(1, "English (English)", "en"), (2, "Deutsch (German)", "de")]),
        "ps_shop": ("id_shop INTEGER PRIMARY KEY, name TEXT", [(1, "The mill")]),
        "ps_feature_product": ("id_product INT, id_feature_value INT, PRIMARY KEY (id_product, id_feature_value)",
                               [(n, n % 3 + 1) for n in range(1, 13)]),
        "ps_feature_value": ("id_feature_value INTEGER PRIMARY KEY, custom INT", [(n, 0) for n in range(1, 4)]),
        "ps_feature_value_lang": (f"id_feature_value INT, id_lang INT, value TEXT, {value_key}",
                                  [(n, k, f"{'Oak' if k == 1 else 'Eiche'} {'dry fine raw'.split()[n - 1]}")
                                   for n in range(1, 4) for k in (1, 2)]),
    }  # fmt: skip


def test_a_product_with_texts_by_number_of_language_is_a_document_in_each_with_its_reviews(propose):
    made = propose(shop())
    product = index(made, "ps_product_lang")
    assert product["key"] == ["id_product", "id_shop", "id_lang"]
    assert (product["title"], product["text"]) == ("name", ["description", "meta_title", "product.reference"])
    assert [part["table"] for part in product["parts"]] == ["ps_product_comment", "ps_feature_product"]
    assert product["parts"][1]["on"] == {"id_product": "id_product", "feature_value.id_lang": "id_lang"}
    assert len(shown(propose, made, "ps_product_lang")) == 22  # the product that is not active is in neither
    assert not [one.tables for one in made.indexes if "parts" in one.settings and one.tables[0] == "ps_carrier_lang"]


def cms(latest, live, *, kinds=1):
    """Return pages in a tree by path, whose texts are in tables of their kinds, and versions of them as JSON."""
    versions = "latest_revision_id INT, live_revision_id INT"
    paths = {1: "0001", 2: "00010001", 3: "00010002", 4: "000100020001", **{n: f"0001{n:04}" for n in range(5, 31)}}
    tables = {
        "page": (f"id INT PRIMARY KEY, path TEXT, title TEXT, draft_title TEXT, {versions}",
                 [(n, path, f"Page {n} of the mill", f"Draft {n} of it", n + 100, n) for n, path in paths.items()]),
        "revision": ("id INTEGER PRIMARY KEY, content TEXT",
                     [(n, f'{{"body": "{live} {n}"}}') for n in paths]
                     + [(n + 100, f'{{"body": "{latest} {n}"}}') for n in paths]),
        "page_view_restriction": ("id INTEGER PRIMARY KEY, page_id INTEGER, password TEXT", [(1, 3, "s3cret")]),
        "search_index_entry": ("id INTEGER PRIMARY KEY, title TEXT, body TEXT",
                               [(n, f"Page {n} of the mill", f"{PROSE} {n}") for n in paths]),
    }  # fmt: skip
    for kind in range(kinds):
        rows = [(n, f"{PROSE} {n}") for n in paths if n % kinds == kind]
        tables[f"kind{kind}_page"] = ("page_ptr_id INTEGER PRIMARY KEY REFERENCES page (id), body TEXT", rows)
    return tables


def test_pages_of_all_kinds_have_their_own_texts_and_no_version_of_them(propose):
    made = propose(cms("The latest text of the mill", "The text of the mill", kinds=12))
    page = index(made, "page")
    assert len(page["parts"]) == 12
    assert "text" not in page
    assert page["payload"] == []  # the title of a draft is none
    assert made.left_out["search_index_entry"] == "is for programs, by its name"


def test_of_two_versions_the_one_that_is_out_is_shown(propose):
    made = propose(cms("The latest text of the mill", "The text of the mill", kinds=0))
    assert index(made, "page")["text"] == ["live_revision.content"]


def test_what_is_below_a_page_for_which_one_has_to_log_in_is_hidden(propose):
    made = propose(cms("The latest text of the mill", "The text of the mill"))
    assert {str(n) for n in range(1, 31)} - shown(propose, made, "page") == {"3", "4"}


def test_a_page_that_is_restricted_one_day_is_hidden_then(propose):
    tables = cms("The latest text of the mill", "The text of the mill")
    tables["page_view_restriction"] = ("id INTEGER PRIMARY KEY, page_id INTEGER REFERENCES page (id)", [])
    made = propose(tables)
    engine = sa.create_engine(propose.url)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO page_view_restriction VALUES (1, 3)")
    engine.dispose()
    assert {str(n) for n in range(1, 31)} - shown(propose, made, "page") == {"3", "4"}


@pytest.mark.parametrize("column", ["permission_type", "data_type"])
def test_a_type_by_number_is_none_of_another_table_with_types(propose, column):
    made = propose(
        {
            "group_page": (f"page_id INTEGER, {column} INTEGER, PRIMARY KEY (page_id, {column})",
                           [(n, n % 3 + 1) for n in range(1, 13)]),
            "page": pages("x INTEGER", [0]),
            "badge_types": ("id INTEGER PRIMARY KEY, name TEXT", [(1, "Gold"), (2, "Silver"), (3, "Bronze")]),
        }
    )  # fmt: skip
    assert "parts" not in index(made, "page")


def test_mails_as_they_came_in_are_no_text(propose):
    mails = [
        (n, f"From: kim{n}@mill.example\nTo: desk@mill.example\nSubject: Wheel\n\n{PROSE} {n}") for n in range(1, 13)
    ]
    tables = {"incoming": ("id INTEGER PRIMARY KEY, raw TEXT", mails), "page": pages("x INTEGER", [0])}
    assert propose(tables).left_out["incoming"] == "has no text"


def test_a_message_is_a_part_of_its_conversation_and_not_of_whoever_sent_it(propose):
    messages = [(n, n % 12 + 1, ("User", "Contact")[n % 2], n % 12 + 1, f"{PROSE} {n}") for n in range(1, 49)]
    made = propose(
        {
            "messages": ("id INTEGER PRIMARY KEY, conversation_id INT, sender_type TEXT, sender_id INT, content TEXT",
                         messages),
            "conversations": ("id INTEGER PRIMARY KEY, contact_id INT", [(n, n) for n in range(1, 13)]),
            "contacts": ("id INTEGER PRIMARY KEY, name TEXT", [(n, f"Kim Mill of {n}") for n in range(1, 13)]),
            "users": ("id INTEGER PRIMARY KEY, name TEXT, password TEXT", [(n, f"Lee {n}", "x") for n in range(1, 13)]),
        }
    )  # fmt: skip
    assert [part["table"] for part in index(made, "conversations")["parts"]] == ["messages"]


def desk(**more) -> dict:
    """A desk whose conversations have a text of their own, too: what is known of each, in JSON."""
    messages = [(n, n % 12 + 1, f"{PROSE} {n}") for n in range(1, 49)]
    conversations = [(n, n % 6 + 1, f'{{"read before": "{PROSE} {n}"}}') for n in range(1, 13)]
    return {
        "messages": ("id INTEGER PRIMARY KEY, conversation_id INT, content TEXT", messages),
        "conversations": ("id INTEGER PRIMARY KEY, contact_id INT, custom_attributes JSON", conversations),
        "contacts": ("id INTEGER PRIMARY KEY, name TEXT, about TEXT",
                     [(n, f"Kim Mill of {n}", f"{PROSE} {n}") for n in range(1, 7)]),
        **more,
    }  # fmt: skip


def test_a_conversation_is_no_part_of_a_person_who_has_several(propose):
    made = propose(desk())
    assert [part["table"] for part in index(made, "conversations")["parts"]] == ["messages"]


@pytest.mark.parametrize(("typed", "are_parts"), [(8, False), (12, True)])
def test_answers_of_which_only_some_belong_to_something_are_documents(propose, typed, are_parts):
    answers = [
        (n, f"What does wheel {n} need?", f"{PROSE} {n}", "Conversation" if n <= typed else None, n)
        for n in range(1, 13)
    ]
    columns = "id INTEGER PRIMARY KEY, question TEXT, answer TEXT, origin_type TEXT, origin_id INT"
    made = propose(desk(captain_responses=(columns, answers)))
    parts = [part["table"] for part in index(made, "conversations")["parts"]]
    assert ("captain_responses" in parts) == are_parts
    if not are_parts:
        assert index(made, "captain_responses")["title"] == "question"


@pytest.mark.parametrize(
    ("column", "more", "hidden"),
    [
        ("status", "slug TEXT", {"2", "4"}),
        ("state", "alias TEXT", {"2", "4"}),
        ("status", "editor TEXT", set()),
        ("ranking", "slug TEXT", set()),
    ],
)
def test_of_what_has_an_address_most_rows_are_out_and_other_states_hidden(propose, column, more, hidden):
    rows = [(n, f"Wheel {n}", f"{PROSE} {n}", {2: 0, 4: 2}.get(n, 1), f"wheel-{n}") for n in range(1, 13)]
    made = propose({"article": (f"id INTEGER PRIMARY KEY, title TEXT, body TEXT, {column} INT, {more}", rows)})
    assert {str(n) for n in range(1, 13)} - shown(propose, made, "article") == hidden


def test_a_number_that_names_a_row_of_another_table_hides_none(propose):
    rows = [(n, f"Wheel {n}", f"{PROSE} {n}", {2: 2, 4: 3}.get(n, 1), f"wheel-{n}") for n in range(1, 13)]
    made = propose(
        {
            "article": ("id INTEGER PRIMARY KEY, title TEXT, body TEXT, status INT REFERENCES stage (id), slug TEXT",
                        rows),
            "stage": ("id INTEGER PRIMARY KEY, name TEXT", [(1, "Fast wheels"), (2, "Slow wheels"), (3, "No wheels")]),
        }
    )  # fmt: skip
    assert len(shown(propose, made, "article")) == 12


def test_notes_that_name_a_patient_are_no_parts_of_a_table_called_like_theirs(propose):
    """`pid` of `form_soap` may be a row of `form`, by its name, which has a `pid` of its own."""
    made = propose(
        {
            "forms": ("id INTEGER PRIMARY KEY, pid INT, form_name TEXT",
                      [(n, n % 12 + 1, f"Sheet {n} of the mill") for n in range(1, 49)]),
            "form_soap": ("id INTEGER PRIMARY KEY, pid INT, plan TEXT",
                          [(n, n % 12 + 1, f"{PROSE} {n}") for n in range(1, 25)]),
            "patient_data": ("id INTEGER, pid INTEGER NOT NULL UNIQUE, fname TEXT, lname TEXT",
                             [(n, n, f"Kim {n}", f"Miller {n}") for n in range(1, 13)]),
        }
    )  # fmt: skip
    parts = [
        part["table"] for one in made.indexes for part in one.settings.get("parts", ()) if one.tables[0] == "forms"
    ]
    assert parts == []
    assert "has no primary key" not in str(made.left_out)


def test_a_thing_is_hidden_by_the_row_of_its_kind(propose):
    kinds = {
        name: (f"id INTEGER PRIMARY KEY REFERENCES entity (id), {column} TEXT, state TEXT",
               [(n, f"{PROSE} of {n}", "Draft" if n % 10 == 7 else "Published") for n in range(first, first + 10)])
        for name, column, first in [("faq", "answer", 1), ("ticket", "solution", 11), ("quote", "terms_text", 21)]
    }  # fmt: skip
    entities = [(n, f"Wheel {n}", f"{PROSE} {n}") for n in range(1, 31)]
    made = propose({"entity": ("id INTEGER PRIMARY KEY, label TEXT, description TEXT", entities), **kinds})
    assert {str(n) for n in range(1, 31)} - shown(propose, made, "entity") == {"7", "17", "27"}


def wheel_shop(**more) -> dict:
    products = [(n, "2031-03-01" if n == 3 else "2022-03-01") for n in range(1, 25)]
    return {
        "language": ("id INTEGER PRIMARY KEY, name TEXT", [(1, "English"), (2, "German")]),
        "product": ("product_id INTEGER PRIMARY KEY, date_available DATE", products),
        "product_description": (
            "product_id INT, language_id INT, name TEXT, description TEXT, PRIMARY KEY (product_id, language_id)",
            [(n, k, f"Wheel {n} {k}", f"{PROSE} {n} {k}") for n in range(1, 25) for k in (1, 2)],
        ),
        "category": ("category_id INTEGER PRIMARY KEY, sort_order INT", [(n, n) for n in range(1, 7)]),
        "category_description": (
            "category_id INT, language_id INT, name TEXT, description TEXT, PRIMARY KEY (category_id, language_id)",
            [(n, k, f"Kind {n} {k}", f"{PROSE} for kind {n} {k}") for n in range(1, 7) for k in (1, 2)],
        ),
        "product_to_category": ("product_id INT, category_id INT, PRIMARY KEY (product_id, category_id)",
                                [(n, n % 6 + 1) for n in range(1, 25)]),
        **more,
    }  # fmt: skip


def test_a_category_contains_products_and_is_a_label_of_them(propose):
    made = propose(wheel_shop())
    parts = {one.tables[0]: str(one.settings.get("parts")) for one in made.indexes}
    assert "product" not in parts["category_description"]
    assert "category" in parts["product_description"]


def test_what_is_not_available_yet_is_hidden(propose):
    assert not {"[3,1]", "[3,2]"} & shown(propose, propose(wheel_shop()), "product_description")


def test_what_a_product_is_linked_to_has_its_text_beside_it(propose):
    attributes = {
        "attribute_description": (
            "attribute_id INT, language_id INT, name TEXT, PRIMARY KEY (attribute_id, language_id)",
            [(n, k, f"Size {n} {k}") for n in range(1, 4) for k in (1, 2)],
        ),
        "attribute": ("attribute_id INTEGER PRIMARY KEY, sort_order INT", [(n, n) for n in range(1, 4)]),
        "product_attribute": (
            (
                "product_id INT, attribute_id INT, language_id INT, text TEXT, PRIMARY KEY (product_id, attribute_id, "
                "language_id)"
            ),
            [(n, n % 3 + 1, k, ("Birch", "Larch")[n % 2]) for n in range(1, 25) for k in (1, 2)],
        ),
    }
    made = propose(wheel_shop(**attributes))
    (part,) = [one for one in index(made, "product_description")["parts"] if one["table"] == "product_attribute"]
    assert part["text"] == "{attribute_description.name}: {text}"
    assert part["on"] == {
        "product_id": "product_id", "attribute_description.language_id": "language_id", "language_id": "language_id"
    }  # fmt: skip


def test_what_was_said_when_an_order_changed_is_a_part_of_it_if_people_were_told(propose):
    history = [(n, n % 12 + 1, n % 5 > 0, f"{PROSE} {n}") for n in range(1, 49)]
    made = propose(
        {
            "order_history": ("id INTEGER PRIMARY KEY, order_id INT, notify INTEGER, comment TEXT", history),
            "orders": ("id INTEGER PRIMARY KEY, name TEXT, comment TEXT",
                       [(n, f"Wheel of {n}", f"{PROSE} for {n}") for n in range(1, 13)]),
        }
    )  # fmt: skip
    (part,) = index(made, "orders")["parts"]
    assert (part["table"], part["where"]) == ("order_history", "notify = 1")


@pytest.mark.parametrize(
    ("column", "values", "hidden"),
    [
        ("activity INT", [1, 0, 1, 1], {"2"}),
        ("activity INT", [1, 2, 3, 0], set()),
        ("added_erroneously INT", [0, 1, 0, 0], {"2"}),
        ("verification TEXT", ["confirmed", "entered-in-error", "unconfirmed", "confirmed"], {"2"}),
        ("visibility TEXT", ["all", "Private", "Public", "all"], {"2"}),
        ("sensitivity TEXT", ["normal", "high", "normal", "normal"], {"2"}),
    ],
)
def test_words_that_say_that_a_row_does_not_count(propose, column, values, hidden):
    rows = [(n, f"Wheel {n}", f"{PROSE} {n}", (values * 3)[n - 1] if n <= 4 else values[0]) for n in range(1, 13)]
    made = propose({"problem": (f"id INTEGER PRIMARY KEY, title TEXT, note TEXT, {column}", rows)})
    assert {str(n) for n in range(1, 13)} - shown(propose, made, "problem") == hidden


def test_bugs_have_notes_and_texts_of_tables_of_their_own_whatever_all_tables_end_with(propose):
    """In the way of MantisBT."""
    bugs = [(n, n % 3 + 1, n, 50 if n == 7 else 10, f"The wheel {n} creaks") for n in range(1, 25)]
    notes = [(n, n % 24 + 1, n, 50 if n == 9 else 10) for n in range(1, 49)]
    made = propose(
        {
            "mantis_bug_table": (
                "id INTEGER PRIMARY KEY, project_id INT, bug_text_id INT, view_state INT, summary VARCHAR(128)", bugs
            ),
            "mantis_bug_text_table": ("id INTEGER PRIMARY KEY, description TEXT, steps_to_reproduce TEXT",
                                      [(n, f"{PROSE} {n}", f"Turn wheel {n} and wait") for n in range(1, 25)]),
            "mantis_bugnote_table": ("id INTEGER PRIMARY KEY, bug_id INT, bugnote_text_id INT, view_state INT", notes),
            "mantis_bugnote_text_table": ("id INTEGER PRIMARY KEY, note TEXT",
                                          [(n, f"<p>{PROSE}, note {n}</p>") for n in range(1, 49)]),
            "mantis_project_table": ("id INTEGER PRIMARY KEY, name TEXT, description TEXT",
                                     [(n, f"Mill {n}", f"{PROSE} in mill {n}") for n in range(1, 4)]),
            "mantis_custom_field_table": ("id INTEGER PRIMARY KEY, name TEXT", [(1, "Machine"), (2, "Workaround")]),
            "mantis_custom_field_string_table": ("field_id INT, bug_id INT, value TEXT, PRIMARY KEY (field_id, bug_id)",
                                                 [(n % 2 + 1, n, f"Wheel of stone {n}") for n in range(1, 25)]),
        }
    )  # fmt: skip
    assert {one.tables[0] for one in made.indexes} == {"mantis_bug_table", "mantis_project_table"}
    bug = index(made, "mantis_bug_table")
    assert (bug["title"], bug["where"]) == ("summary", "view_state = 10")
    assert bug["text"][:2] == ["bug_text.description", "bug_text.steps_to_reproduce"]
    note, field = bug["parts"]
    assert (note["table"], note["where"]) == ("mantis_bugnote_table", "view_state = 10")
    (text,) = note["text"]
    assert note["format"] == {text: "html"}
    assert field["text"] == "{custom_field.name}: {value}"
    assert next(one.name for one in made.indexes if one.tables[0] == "mantis_bug_table") == "bug"
    loaded = Settings(source={"url": str(propose.url)}, indexes=[{"name": "one", **bug}])
    source = open_source(loaded, loaded.indexes[0])
    try:
        texts = source.page(None, 500).documents.texts
    finally:
        source.close()
    assert sum(text.count(", note ") for text in texts) == 45  # one is for few, two are of a bug that is


@pytest.mark.parametrize(
    ("states", "hidden"),
    [
        (["Approved", "Pending", "Not Approved"], {"2", "3"}),
        (["Open", "Closed", "Deleted"], {"3"}),
        (["New", "Waiting", "Closed"], set()),
        (["Open", "Pending", "On hold"], set()),
    ],
)
def test_rows_are_hidden_by_what_their_state_is_called_in_a_table_of_its_own(propose, states, hidden):
    tickets = [(n, f"Wheel {n}", f"{PROSE} {n}", n if n <= 3 else 1) for n in range(1, 25)]
    made = propose(
        {
            "ticket": ("id INTEGER PRIMARY KEY, title TEXT, body TEXT, status_id INT", tickets),
            "ticket_status": ("status_id INTEGER PRIMARY KEY, status_code TEXT", list(enumerate(states, 1))),
        }
    )
    assert {str(n) for n in range(1, 25)} - shown(propose, made, "ticket") == hidden


def test_what_moderators_are_told_is_no_part_of_a_post(propose):
    made = propose(
        {
            "posts": pages("x INTEGER", [0]),
            "reports": ("id INTEGER PRIMARY KEY, post_id INT, report_text TEXT",
                        [(n, n, f"Spam: {PROSE} {n}") for n in range(1, 13)]),
        }
    )  # fmt: skip
    assert "parts" not in index(made, "posts")
    assert made.left_out["reports"] == "holds what moderators are told"


def test_a_key_that_happens_to_be_that_of_another_table_is_none_if_another_column_names_its_rows(propose):
    orders = [(n, f"Order of wheel {n}", f"{PROSE} {n}") for n in range(1, 25)]
    history = [(n, 25 - n, f"{PROSE} of {n}") for n in range(1, 25)]
    made = propose(
        {
            "sales_order": ("entity_id INTEGER PRIMARY KEY, title TEXT, body TEXT", orders),
            "sales_order_status_history": (
                "entity_id INTEGER PRIMARY KEY, parent_id INT REFERENCES sales_order (entity_id), comment TEXT", history
            ),
        }
    )  # fmt: skip
    (part,) = index(made, "sales_order")["parts"]
    assert part["on"] == {"parent_id": "entity_id"} or part["on"] == "parent_id"


def test_versions_of_some_rows_are_no_documents_of_rows_whose_text_another_table_holds(propose):
    bugs = [(n, n, f"The wheel {n} creaks") for n in range(1, 25)]
    made = propose(
        {
            "bug": ("id INTEGER PRIMARY KEY, bug_text_id INT, summary VARCHAR(128)", bugs),
            "bug_text": ("id INTEGER PRIMARY KEY, description TEXT", [(n, f"{PROSE} {n}") for n in range(1, 25)]),
            "bug_revision": ("id INTEGER PRIMARY KEY, bug_id INT, value TEXT",
                             [(n, n, f"{PROSE} as it was {n}") for n in range(1, 7)]),
        }
    )  # fmt: skip
    assert [one.tables[0] for one in made.indexes] == ["bug"]
    assert len(shown(propose, made, "bug")) == 24


def test_a_shop_to_which_everything_refers_has_no_parts_and_the_details_of_a_review_are_parts_of_it(propose):
    """In the way of Magento."""
    others = {
        f"thing_{n}": ("id INTEGER PRIMARY KEY, store_id INT, amount INT", [(k, k % 2 + 1, k) for k in range(1, 13)])
        for n in range(9)
    }
    details = [(n, n, n % 2 + 1, f"Fine wheel {n}", f"{PROSE} {n}") for n in range(1, 51)]
    made = propose(
        {
            "store": ("store_id INTEGER PRIMARY KEY, name TEXT", [(1, "English"), (2, "Deutsch")]),
            "review": ("review_id INTEGER PRIMARY KEY, created_at TIMESTAMP",
                       [(n, "2024-01-01 10:00:00") for n in range(1, 51)]),
            "review_detail": (
                "detail_id INTEGER PRIMARY KEY, review_id INT, store_id INT, title TEXT, detail TEXT", details
            ),
            **others,
        }
    )  # fmt: skip
    (part,) = index(made, "review")["parts"]
    assert part["text"] == ["title", "detail"]
    assert "store" not in [one.tables[0] for one in made.indexes]


def test_the_project_of_a_link_is_no_label_of_what_names_its_project_itself(propose):
    """In the way of GitLab, where each table repeats the project."""
    issues = [(n, n % 3 + 1, f"Issue {n} of the mill", f"{PROSE} {n}") for n in range(1, 25)]
    links = [(n, n % 24 + 1, (n % 24 + 1) % 3 + 1, n % 4 + 1) for n in range(1, 49)]
    made = propose(
        {
            "projects": ("id INTEGER PRIMARY KEY, name TEXT", [(n, f"Mill {n} at the weir") for n in range(1, 4)]),
            "labels": ("id INTEGER PRIMARY KEY, title TEXT", [(n, f"urgent {n}") for n in range(1, 5)]),
            "issues": ("id INTEGER PRIMARY KEY, project_id INT, title TEXT, description TEXT", issues),
            "label_links": ("id INTEGER PRIMARY KEY, issue_id INT, project_id INT, label_id INT", links),
        }
    )  # fmt: skip
    assert [part["name"] for part in index(made, "issues")["parts"]] == ["labels"]


def test_what_holds_parts_and_has_no_text_leads_to_what_they_are_parts_of(propose):
    requests = [(n, f"Request {n} of the mill", f"{PROSE} {n}") for n in range(1, 25)]
    commits = [(n, n % 24 + 1, f"{PROSE} in commit {n}") for n in range(1, 49)]
    other = "id INTEGER PRIMARY KEY, merge_request_diff_id INT REFERENCES merge_request_diffs (id), message TEXT"
    made = propose(
        {
            "merge_requests": ("id INTEGER PRIMARY KEY, title TEXT, description TEXT", requests),
            "merge_request_diffs": ("id INTEGER PRIMARY KEY, merge_request_id INT, files INT",
                                    [(n, 25 - n, n) for n in range(1, 25)]),
            "merge_request_diff_commits": (other, commits),
        }
    )  # fmt: skip
    assert [one.tables[0] for one in made.indexes] == ["merge_requests"]
    (part,) = index(made, "merge_requests")["parts"]
    assert (part["table"], part["on"]) == ("merge_request_diff_commits", {"merge_request_diffs.merge_request_id": "id"})
    assert len(shown(propose, made, "merge_requests")) == 24


def test_titles_may_be_numbers_and_places_in_commits_are_no_text(propose):
    place = '{{"head_sha": "{}", "new_path": "src/mill.c", "new_line": 14}}'
    milestones = [(n, f"24.{n}" if n % 3 else f"Freeze {n}", f"{PROSE} {n}") for n in range(1, 25)]
    notes = [(n, n, f"{PROSE} of {n}", place.format(sha1(str(n).encode()).hexdigest())) for n in range(1, 25)]
    made = propose(
        {
            "milestones": ("id INTEGER PRIMARY KEY, title TEXT, description TEXT", milestones),
            "notes": ("id INTEGER PRIMARY KEY, milestone_id INT, note TEXT, position TEXT", notes),
            "keys": ("id INTEGER PRIMARY KEY, title TEXT, key TEXT, fingerprint TEXT",
                     [(n, f"Laptop {n} of the miller", f"{PROSE} {n}", f"ab:{n}") for n in range(1, 25)]),
        }
    )  # fmt: skip
    settings = index(made, "milestones")
    assert (settings["title"], settings["parts"][0]["text"]) == ("title", ["note"])
    assert made.left_out["keys"] == "holds keys"


def test_an_older_version_that_a_remark_names_is_no_text_of_it(propose):
    issues = [(n, f"Issue {n} of the mill", f"{PROSE} {n}") for n in range(1, 25)]
    versions = [(n, n, f"{PROSE} as it was {n}") for n in range(1, 25)]
    made = propose(
        {
            "issues": ("id INTEGER PRIMARY KEY, title TEXT, description TEXT", issues),
            "description_versions": ("id INTEGER PRIMARY KEY, issue_id INT, description TEXT", versions),
            "issue_remarks": ("id INTEGER PRIMARY KEY, issue_id INT, description_version_id INT, action TEXT",
                              [(n, n, n, "description") for n in range(1, 25)]),
        }
    )  # fmt: skip
    assert "as it was" not in str(index(made, "issues"))
    assert "description_versions" not in [part["table"] for part in index(made, "issues").get("parts", [])]
    assert "description_versions" not in str(index(made, "issues"))


def test_rows_that_a_table_links_with_a_group_of_persons_are_for_that_group(propose):
    """In the way of Bugzilla, which also has a copy for searching, and passwords called `cryptpassword`."""
    bugs = [(n, f"The wheel {n} creaks", f"{PROSE} {n}") for n in range(1, 25)]
    made = propose(
        {
            "bugs": ("bug_id INTEGER PRIMARY KEY, short_desc VARCHAR(255), body TEXT", bugs),
            "profiles": ("userid INTEGER PRIMARY KEY, login_name TEXT, cryptpassword TEXT, realname TEXT, why TEXT",
                         [(n, f"m{n}", f"x{n}", f"Miller Number {n}", f"{PROSE} {n}") for n in range(1, 9)]),
            "groups": ("id INTEGER PRIMARY KEY, name TEXT", [(n, f"masters {n}") for n in range(1, 4)]),
            "user_group_map": ("user_id INT REFERENCES profiles (userid), group_id INT REFERENCES groups (id)",
                               [(n, n % 3 + 1) for n in range(1, 9)]),
            "bug_group_map": ("bug_id INT REFERENCES bugs (bug_id), group_id INT REFERENCES groups (id)",
                              [(3, 1), (7, 2)]),
            "bugs_fulltext": ("bug_id INTEGER PRIMARY KEY REFERENCES bugs (bug_id), comments TEXT",
                              [(n, f"{PROSE} copied {n}") for n in range(1, 25)]),
            "keywords": ("id INTEGER PRIMARY KEY, name TEXT, description TEXT",
                         [(n, f"noise {n}", f"{PROSE} {n}") for n in range(1, 5)]),
            "bug_keywords": ("bug_id INT REFERENCES bugs (bug_id), keyword_id INT REFERENCES keywords (id)",
                             [(n, n % 4 + 1) for n in range(1, 25)]),
        }
    )  # fmt: skip
    found = shown(propose, made, "bugs")
    assert (len(found), {"3", "7"} & found) == (22, set())
    assert index(made, "bugs")["title"] == "short_desc"
    assert made.left_out["profiles"] == "holds the accounts of people who log in"
    assert "bugs_fulltext" in made.left_out
    assert "bugs_fulltext" not in str(made.indexes)
    assert "parts" not in index(made, "keywords")  # the bugs of a keyword are no labels of it


def test_items_of_any_kind_are_no_rows_of_a_table_of_items_and_long_documents_are_no_labels(propose):
    """In the way of GLPI."""
    changes = [(n, f"Change {n} of the mill", " ".join([PROSE] * 3) + str(n)) for n in range(1, 13)]
    problems = [(n, f"Problem {n} of the mill", f"{PROSE} {n}") for n in range(1, 13)]
    machines = [(n, f"Mill wheel {n}", f"{PROSE} {n}") for n in range(1, 6)]
    columns = "id INTEGER PRIMARY KEY, name TEXT, content TEXT"
    items = "id INTEGER PRIMARY KEY, {}_id INT, itemtype TEXT, items_id INT"
    made = propose(
        {
            "machines": (columns, machines), "changes": (columns, changes), "problems": (columns, problems),
            "changes_items": (items.format("change"), [(n, n, "Machine", n % 5 + 1) for n in range(1, 13)]),
            "problems_items": (items.format("problem"), [(n, n, "Machine", n) for n in range(1, 13)]),
        }
    )  # fmt: skip
    assert "changes" not in str(index(made, "problems"))  # most of its machines are gone
    assert "parts" not in index(made, "machines")
    assert "Mill wheel" not in str(index(made, "machines"))


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
    found = shown(propose, made, "tabSales Order")
    assert (len(found), "SO-5" in found) == (11, False)
    assert "modified_by" not in str(made.indexes)


def test_tables_with_copies_of_texts_are_left_out(propose):
    texts = [f"{text} {PROSE}, and {text} asked for it" for text in ("Anna", "Bob", "Cleo", "Dan", "Eve", "Finn")]
    stories = [(n, f"Story {n} of the mill", text) for n, text in enumerate(texts, 1)]
    kept = [(n, n % 6 + 1, texts[n % 6] if n > 3 else f"{n} was the first draft. {PROSE}") for n in range(1, 20)]
    sent = [(n, n, f"News {n} of the mill", f"<p>{text}</p>", f"Hello! {text}") for n, text in enumerate(texts, 1)]
    made = propose(
        {
            "stories": ("id INTEGER PRIMARY KEY, title TEXT, body TEXT", stories),
            "story_journals": ("id INTEGER PRIMARY KEY, place INTEGER, body TEXT", kept),
            "mailings": ("id INTEGER PRIMARY KEY, story_id INTEGER, subject TEXT, html TEXT, plain TEXT", sent),
        }
    )
    assert [one.tables for one in made.indexes] == [["stories"]]
    assert made.left_out == {
        "story_journals": "holds copies of the texts of stories",
        "mailings": "holds copies of the texts of stories",
    }


def test_texts_in_another_language_are_no_copies(propose):
    texts = [f"{PROSE} {name}" for name in ("Anna", "Bob", "Cleo", "Dan")]
    rows = [(n, language, f"Titel {n}", text) for n, text in enumerate(texts, 1) for language in ("en", "de")]
    made = propose(
        {
            "stories": (
                "id INTEGER PRIMARY KEY, title TEXT, body TEXT",
                [(n, f"T {n}", t) for n, t in enumerate(texts)],
            ),
            "story_texts": ("id INTEGER, lang TEXT, title TEXT, body TEXT, PRIMARY KEY (id, lang)", rows),
        }
    )
    assert "story_texts" not in made.left_out


FORUM = {
    "users": ("id INTEGER PRIMARY KEY, username TEXT, password TEXT", [(n, f"user {n}", "x") for n in range(1, 9)]),
    "topics": ("id INTEGER PRIMARY KEY, title TEXT, last_post_id INTEGER",
               [(n, f"Topic {n}", 2 * n) for n in range(1, 15)]),
    "posts": ("id INTEGER PRIMARY KEY, topic_id INTEGER, body TEXT, is_hidden INTEGER",
              [(n, (n + 1) // 2, f"{PROSE} {n}", n == 4) for n in range(1, 29)]),
    "tags": ("id INTEGER PRIMARY KEY, name TEXT, is_restricted INTEGER",
             [(1, "Bees", 0), (2, "Staff room", 1), (3, "Honey", 0), (4, "Swarms", 0)]),
    "tag_topic": ("tag_id INTEGER, topic_id INTEGER, PRIMARY KEY (tag_id, topic_id)",
                  [(n % 4 + 1, n) for n in range(1, 15)] + [(1, 5)]),
    "dialogs": ("id INTEGER PRIMARY KEY, last_post_id INTEGER, created_at TIMESTAMP", [(1, 2, None), (2, 3, None)]),
    "dialog_messages": ("id INTEGER PRIMARY KEY, dialog_id INTEGER, user_id INTEGER, content TEXT",
                        [(n, n % 2 + 1, n % 7 + 1, f"Behind the barn: {PROSE} {n}") for n in range(1, 20)]),
    "dialog_user": ("id INTEGER PRIMARY KEY, dialog_id INTEGER, user_id INTEGER, last_read_at TIMESTAMP",
                    [(n, n % 2 + 1, n % 7 + 1, None) for n in range(1, 9)]),
}  # fmt: skip


def test_a_row_is_no_part_of_what_is_last_in_it_and_is_shown_though_that_is_hidden(propose):
    made = propose(FORUM)
    assert "2" in shown(propose, made, "topics")
    assert [part["table"] for part in index(made, "topics")["parts"]] == ["posts", "tag_topic"]
    assert "joins" not in index(made, "topics")


def test_rows_with_a_restricted_tag_are_left_out(propose):
    made = propose(FORUM)
    assert shown(propose, made, "topics") == {str(n) for n in range(1, 15) if n % 4 != 1}


def test_conversations_whose_readers_are_listed_are_between_persons(propose):
    made = propose(FORUM)
    assert [one.tables[0] for one in made.indexes] == ["topics"]
    assert made.left_out["dialog_messages"] == "belongs to what few persons may see"


def test_pages_with_titles_and_texts_are_no_parts_of_a_wiki_that_has_none(propose):
    made = propose(
        {
            "wikis": ("id INTEGER PRIMARY KEY, name TEXT", [(n, f"Wiki {n} of the mill") for n in range(1, 6)]),
            "wiki_pages": ("id INTEGER PRIMARY KEY, wiki_id INTEGER, title TEXT, text TEXT",
                           [(n, n % 5 + 1, f"Page {n} of the mill", f"{PROSE} {n}") for n in range(1, 14)]),
        }
    )  # fmt: skip
    assert [one.tables[0] for one in made.indexes] == ["wiki_pages"]


def test_one_row_with_a_few_words_is_nothing_to_look_for(propose):
    made = propose(
        {
            "pages": pages("maker TEXT", ["ACME"]),
            "offers": ("id INTEGER PRIMARY KEY, name TEXT, description TEXT", [(1, "Autumn", "For the first year")]),
        }
    )  # fmt: skip
    assert [one.tables[0] for one in made.indexes] == ["pages"]


def blocks(n):
    return [(n * 10 + k, f"<p>{PROSE}, in block {n} {k}</p>") for k in range(3)]


CMS = {
    "kinds": ("id INTEGER PRIMARY KEY, app TEXT, model TEXT", [(7, "cms", "page"), (8, "shop", "product")]),
    "page": ("id INTEGER PRIMARY KEY, title TEXT, login_required INTEGER",
             [(n, f"Page {n} of the mill", n == 4) for n in range(1, 13)]),
    "place": ("id INTEGER PRIMARY KEY, slot TEXT, content_type_id INTEGER REFERENCES kinds(id), object_id INTEGER",
              [(n, "content", 7, n) for n in range(1, 13)]),
    "block": ("id INTEGER PRIMARY KEY, place_id INTEGER REFERENCES place(id), created_at TIMESTAMP",
              [(key, n, None) for n in range(1, 13) for key, _ in blocks(n)]),
    "text_block": ("block_ptr_id INTEGER PRIMARY KEY REFERENCES block(id), body TEXT",
                   [row for n in range(1, 13) for row in blocks(n)]),
    "version": ("id INTEGER PRIMARY KEY, state TEXT, content_type_id INTEGER REFERENCES kinds(id), object_id INTEGER",
                [(n, "draft" if n == 5 else "published", 7, n) for n in range(1, 13)]),
    "page_permission": ("id INTEGER PRIMARY KEY, page_id INTEGER, group_id INTEGER, can_view INTEGER", [(1, 6, 1, 1)]),
}  # fmt: skip


def test_blocks_are_parts_of_the_page_that_their_place_is_of(propose):
    made = propose(CMS)
    assert [one.tables[0] for one in made.indexes] == ["page"]
    (part,) = index(made, "page")["parts"]
    assert (part["table"], part["on"], part["text"]) == ("text_block", {"place.object_id": "id"}, ["body"])
    assert part["joins"] == {
        "block": {"table": "block", "on": {"id": "block_ptr_id"}, "required": True},
        "place": {"table": "place", "on": {"id": "block.place_id"}, "required": True, "where": "content_type_id = 7"},
    }


def test_pages_for_members_drafts_by_a_table_of_versions_and_those_with_permissions_are_left_out(propose):
    made = propose(CMS)
    assert shown(propose, made, "page") == {str(n) for n in range(1, 13) if n not in (4, 5, 6)}


def test_permissions_by_type_hide_the_few_rows_that_have_some(propose):
    made = propose(
        {
            "pages": pages("maker TEXT", ["ACME"]),
            "entity_permissions": ("id INTEGER PRIMARY KEY, entity_id INTEGER, entity_type TEXT, role_id INTEGER",
                                   [(1, 3, "page", 1), (2, 3, "page", 2), (3, 9, "book", 1)]),
        }
    )  # fmt: skip
    assert shown(propose, made, "pages") == {str(n) for n in range(1, 13) if n != 3}


def test_json_for_programs_and_links_of_two_tables_are_nothing_to_read(propose):
    made = propose(
        {
            "pages": pages("rules JSON", ['{"minimum": "12 pieces", "operator": "or"}']),
            "tags": ("id INTEGER PRIMARY KEY, name TEXT", [(n, f"Tag {n}") for n in range(1, 4)]),
            "page_tag": ("id INTEGER PRIMARY KEY, page_id INTEGER, tag_id INTEGER, position INTEGER",
                         [(n, n, n % 3 + 1, n) for n in range(1, 13)]),
            "page_tag_note": ("id INTEGER PRIMARY KEY, page_tag_id INTEGER, note TEXT",
                              [(n, n, f"Noted by {n}: {PROSE}") for n in range(1, 13)]),
        }
    )  # fmt: skip
    assert "page_tag" not in [one.tables[0] for one in made.indexes]
    assert index(made, "pages")["text"] == ["body"]


def test_a_password_of_few_rows_and_a_word_of_a_newsletter_make_no_accounts(propose):
    rows = [(n, f"Story {n} of the mill", f"{PROSE} {n}", "x" if n == 7 else None, 1) for n in range(1, 13)]
    columns = "id INTEGER PRIMARY KEY, title TEXT, body TEXT, password TEXT, email_digest INTEGER"
    made = propose({"stories": (columns, rows)})
    assert shown(propose, made, "stories") == {str(n) for n in range(1, 13) if n != 7}


def test_a_flag_of_the_comments_hides_no_page(propose):
    made = propose(
        {
            "pages": pages("comments_hidden INTEGER", [1, 0]),
            "comments": ("id INTEGER PRIMARY KEY, page_id INTEGER, body TEXT, code TEXT",
                         [(n, n % 12 + 1, f"{n} says: {PROSE}", ("ANSWER", "MSG_PRIVATE")[n % 5 == 0])
                          for n in range(1, 30)]),
        }
    )  # fmt: skip
    assert len(shown(propose, made, "pages")) == 12
    assert index(made, "pages")["parts"][0]["where"] == "code IN ('ANSWER')"


def test_long_notes_of_a_visit_are_documents_and_hidden_with_it(propose):
    made = propose(
        {
            "visits": ("id INTEGER PRIMARY KEY, ward TEXT, deleted_at TIMESTAMP",
                       [(n, "east", "2024-01-01" if n == 3 else None) for n in range(1, 25)]),
            "notes": ("id INTEGER PRIMARY KEY, record_type TEXT, record_id INTEGER, content TEXT",
                      [(n, "Visit", n % 24 + 1, f"{n}. {PROSE}. {PROSE}") for n in range(1, 49)]),
        }
    )  # fmt: skip
    assert shown(propose, made, "notes") == {str(n) for n in range(1, 49) if n % 24 + 1 != 3}


TASKS = {
    "users": ("id INTEGER PRIMARY KEY, username TEXT, password TEXT", [(n, f"user {n}", "x") for n in range(1, 9)]),
    "categories": ("id INTEGER PRIMARY KEY, title TEXT", [(n, f"Category {n}") for n in range(1, 5)]),
    "lanes": ("id INTEGER PRIMARY KEY, name TEXT, is_active INTEGER", [(n, f"Lane {n}", n != 8) for n in range(1, 9)]),
    "boxes": ("id INTEGER PRIMARY KEY, title TEXT, task_limit INTEGER, hide_in_dashboard INTEGER",
              [(n, f"Box {n}", n, n == 2) for n in range(1, 5)]),
    "tasks": ("id INT PRIMARY KEY, catid INT, box_id INT, owner_id INT,name TEXT, body TEXT,is_active INT, access INT",
              [(n, n % 4 + 1, n % 4 + 1, n % 8 + 1, f"Task {n} of the mill", f"{PROSE} {n}", n % 3, 1 + (n == 5))
               for n in range(1, 31)]),
    "comments": ("id INTEGER PRIMARY KEY, task_id INTEGER, body TEXT, visibility TEXT, display_to_customer INTEGER",
                 [(n, n % 30 + 1, f"{n}: {PROSE}", ("app-user", "app-admin")[n % 7 == 0], n % 2) for n in range(60)]),
}  # fmt: skip


def test_a_short_word_may_name_a_table_and_a_limit_or_an_owner_names_none(propose):
    joins = index(propose(TASKS), "tasks")["joins"]
    assert {join["table"] for join in joins.values()} == {"categories", "boxes"}


def test_tasks_are_shown_though_they_are_done_and_their_box_is_in_no_dashboard(propose):
    made = propose(TASKS)
    assert shown(propose, made, "tasks") == {str(n) for n in range(1, 31) if n != 5}


def test_what_an_office_alone_sees_and_what_no_customer_is_shown_is_left_out(propose):
    (part,) = index(propose(TASKS), "tasks")["parts"]
    assert part["where"] == "visibility NOT IN ('app-admin') AND display_to_customer = 1"


def test_a_public_address_is_no_condition_beside_a_private_flag(propose):
    rows = [(n, f"Page {n} of the mill", f"{PROSE} {n}", n == 3, n == 4) for n in range(1, 13)]
    columns = "id INTEGER PRIMARY KEY, title TEXT, body TEXT, is_public INTEGER, is_private INTEGER"
    made = propose({"pages": (columns, rows)})
    assert shown(propose, made, "pages") == {str(n) for n in range(1, 13) if n != 4}


def test_a_main_table_called_content_is_no_text_of_others(propose):
    rows = [(n, f"Page {n} of the mill", f"{n} times a day {PROSE}", n % 3 + 1) for n in range(1, 13)]
    made = propose(
        {
            "app_content": ("id INTEGER PRIMARY KEY, title TEXT, body TEXT, catid INTEGER", rows),
            "app_category": ("id INTEGER PRIMARY KEY, title TEXT", [(n, f"Category {n}") for n in range(1, 4)]),
            "app_content_front": ("content_id INTEGER PRIMARY KEY, ordering INTEGER", [(n, n) for n in range(1, 6)]),
            "app_finder_link": ("link_id INTEGER PRIMARY KEY, name TEXT, summary TEXT",
                                [(row[0] + 50, row[1], f"{row[2][:80]} …") for row in rows]),
        }
    )  # fmt: skip
    assert [one.tables[0] for one in made.indexes] == ["app_content"]
