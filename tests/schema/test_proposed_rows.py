"""Rows that the proposals of `init` show, and those that nobody may be shown."""

from random import Random

import pytest
import sqlalchemy as sa

from rag_index.first_run.schema.scaffold import scaffold
from tests.schema.proposals import DAY, PROSE, TEXT, cms, cycle, entities, itself, many, names, pages, wheel_shop, wiki

PAST, FUTURE = 1_600_000_000, 4_000_000_000


def keys(count, without=()):
    return {str(n) for n in range(1, count + 1)} - set(without)


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


SHOWN = {
    "versions make no container of what they are of": (
        {"pages": many(12, title="Page {n} of the mill", body="Words about it {n}"),
         "page_versions": many(24, page_id=cycle(12), content="Words {n}")},
        "pages", keys(12)),
    "a number that names a row of another table hides none": (
        {"article": many(12, title="Wheel {n}", body=TEXT, status=lambda n: {2: 2, 4: 3}.get(n, 1), slug="wheel-{n}",
                         kinds={"status": "INT REFERENCES stage (id)"}),
         "stage": names("Fast wheels", "Slow wheels", "No wheels")},
        "article", keys(12)),
    "one row for each row of another is hidden with it": (
        {"help_answers": many(12, published_at=lambda n: DAY if n < 12 else None, kinds={"published_at": "DATETIME"}),
         "help_answer_translations": many(12, title="Answer {n} of the mill", answer_id=itself, content_id=itself),
         "help_answer_translation_contents": many(12, body=TEXT)},
        "help_answer_translations", keys(12, ["12"])),
    "a level for fewer than most": (
        {"confidentiality_levels": names("standard", "restricted", "wall"),
         "pages": pages("confidentiality_level_id INTEGER", [3, 1])},
        "pages", keys(12, "1")),
    "an article about what is internal": (
        {"articles": many(12, title=lambda n: "Print confidential documents" if n == 3 else f"Article {n}", body=TEXT),
         "remarks": many(12, article_id=itself, body=TEXT)},
        "articles", keys(12)),
    "a confidential issue hides nothing that it is linked with": (
        {"issues": many(20, title="Issue {n} of it", description=TEXT, confidential=lambda n: int(n == 5)),
         "changes": many(20, title="Change {n} of it", description=TEXT),
         "changes_closing_issues": many(20, issue_id=itself, change_id=itself)},
        "changes", keys(20)),
    "a permission for the page above all hides none": (
        {"page": many(12, title="Page {n} of the mill", body=TEXT, path=lambda n: "0001" if n == 1 else f"0001{n:04}"),
         "grouppagepermission": many(3, page_id=1, group_id=itself), "pageviewrestriction": many(1, page_id=7)},
        "page", keys(12, ["7"])),
    "a permission for a page hides those below it": (
        {"page": many(12, title="Page {n} of the mill", body=TEXT, path=lambda n: "00050009" if n == 9 else f"{n:04}"),
         "page_permission": many(1, page_id=5, group_id=1)},
        "page", keys(12, ["5", "9"])),
    "permissions by type hide the few rows that have some": (
        {"pages": pages("maker TEXT", ["ACME"]),
         "entity_permissions": ("id INTEGER PRIMARY KEY, entity_id INTEGER, entity_type TEXT, role_id INTEGER",
                                [(1, 3, "page", 1), (2, 3, "page", 2), (3, 9, "book", 1)])},
        "pages", keys(12, "3")),
    "a flag may be one word with `is`, and what a category contains is no part": (
        {"faq": many(12, "faq_id", category_id=cycle(3), question="What is wheel no. {n}?", answer=TEXT,
                     isprivate=lambda n: int(n == 7)),
         "faq_category": many(3, "category_id", name="Kind {n} of mill", description="About mill {n}")},
        "faq", keys(12, "7")),
    "a channel of two persons is hidden though there are few channels": (
        {"chat_message": many(30, chat_channel_id=cycle(3), message=TEXT),
         "chat_channel": ("id INTEGER PRIMARY KEY, name TEXT, type TEXT",
                          [(1, "Mill talk", "CategoryChannel"), (2, "Wheel talk", "CategoryChannel"),
                           (3, None, "DirectMessageChannel")])},
        "chat_message", {str(n) for n in range(1, 31) if n % 3 != 2}),
    "notes of a visit are parts of it and hidden with it": (
        {"notes": many(48, record_type="Visit", record_id=cycle(24), content=f"{{n}}. {PROSE}. {PROSE}"),
         "visits": many(24, ward="east", deleted_at=lambda n: DAY if n == 3 else None,
                        kinds={"deleted_at": "TIMESTAMP"})},
        "visits", keys(24, "3")),
    "pages below a hidden one are hidden at any depth": (
        {"pages": many(12, pid=lambda n: n - 1 if n > 5 else 0, hidden=lambda n: int(n == 8), body=TEXT,
                       title="Page {n} of the mill", kinds={"pid": "INTEGER NOT NULL", "hidden": "INTEGER NOT NULL"})},
        "pages", set("1234567")),
    "what is below the bin of a tree is in the bin": (
        {"pages": many(12, parent_id=lambda n: {5: 3, 6: 5, 7: 3}.get(n, n // 2), title="Page {n} of it", body=TEXT,
                       name=lambda n: {3: "trash", 2: "trash-can-for-mills"}.get(n, f"page-{n}"))},
        "pages", set("1248") | {"9"}),
}  # fmt: skip


@pytest.mark.parametrize(("tables", "table", "wanted"), SHOWN.values(), ids=SHOWN)
def test_a_row_is_hidden_with_what_hides_it_and_by_nothing_else(propose, tables, table, wanted):
    assert propose(**tables).shown(table) == wanted


@pytest.mark.parametrize("project_id", [2, 0, None])
def test_rows_are_hidden_with_what_they_name_and_shown_if_they_name_nothing(propose, project_id):
    """0 names no row: such rows stay."""
    titles = ("Mill", "Secret weir", "Lock")
    made = propose(
        projects=many(3, name=lambda n: titles[n - 1], is_public=lambda n: int(n != 2)),
        wikis=many(3, project_id=itself),
        wiki_pages=many(30, title="Page {n} of the mill", body=TEXT, wiki_id=cycle(3)),
        members=many(3, project_id=itself),
        tickets=many(
            30, subject="Ticket {n} of the mill", body=TEXT, project_id=lambda n: n % 3 + 1 if n > 1 else project_id,
            kinds={"project_id": "INTEGER"},
        ),
    )  # fmt: skip
    public = keys(30, [str(n) for n in range(1, 31, 3)])
    assert made.shown("wiki_pages") == public
    assert made.shown("tickets") == (public if project_id else public | {"1"})


@pytest.mark.parametrize(
    ("column", "values", "hidden"),
    [
        ("visibility_level INTEGER", [0, 10, 20], {1, 2}),
        ("status TEXT", ["published_private", "published"], {1}),
        ("status TEXT", ["team_private", "shared"], {1}),
        ("status INTEGER", [9, 5, 1], {1}),
        ("status INTEGER", [9, 8, 1], set()),
        ("state INTEGER", [-2, 1], {1}),
        ("endtime INTEGER AS (0), starttime INTEGER NOT NULL", [FUTURE, PAST, 0], {1}),
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
        ("most_recent INTEGER", [0, 1], {1}),
        ("activity INTEGER", [2, 3, 0, 1], set()),
        ("added_erroneously INTEGER", [1, 0], {1}),
        ("verification TEXT", ["entered-in-error", "unconfirmed", "confirmed"], {1}),
        ("visibility TEXT", ["Private", "Public", "all"], {1}),
        ("sensitivity TEXT", ["high", "normal"], {1}),
        ("is_public INTEGER, is_private INTEGER AS (id = 4)", [0, 0, 1, 0], {4}),  # the former has a public address
        ("visibility INTEGER", [2, 0], {1}),
        ("online_only INTEGER", [0, 1, 0], set()),  # says how a thing is sold
        ("live_edit INTEGER", [0, 1], set()),
        ("is_online_registration INTEGER", [0, 1, 1], set()),
        ("is_template INTEGER", [1, 0], {1}),
        # half of the events are templates
        ("start_date DATETIME, end_date DATETIME AS (start_date)", [*[DAY] * 6, None], set()),
        ("public_chat INTEGER", [0, 1], {1}),
        ("approved_edit INTEGER", [0, 1], {1}),
        ("priv INTEGER NOT NULL", [1, 0], {1}),
        ("category TEXT", ["private", "workspace"], {1}),
        ("statut TEXT", ["prop", "prepa", "poubelle", "publie"], {1, 2, 3}),
        ("estado TEXT", ["borrador", "publicado"], {1}),
        ("zustand TEXT", ["papierkorb", "neu"], {1}),
        ("visible_to_staff_only INTEGER", [1, 0], {1}),
        ("hold INTEGER", [2, 1, 0], {1, 2}),
        ("viewable INTEGER", [0, 1], {1}),
        ("trash_timestamp INTEGER", [1_600_000_000, None], {1}),
        ("is_on_sale INTEGER", [0, 1], {1}),
        ("is_on_sale INTEGER", [1, 0], set()),  # at a lower price
        ("RedirectPreviewUrl TEXT", ["true", None, "false"], set()),  # a preview has another address
        # in SQLite, a boolean may be written as a text, or in several ways
        ("hidden BOOL", ["true", None, "false"], {1}),
        ("hidden BOOL NOT NULL", ["true", "false"], {1}),
        ("hidden BOOL NOT NULL", ["true", 0, "false"], {1}),
        ("is_visible BOOLEAN", ["false", 1, "true"], {1}),
        ("hidden BOOLEAN", [1, 0], {1}),
        # of what has an address, most rows are out
        ("status INTEGER, slug TEXT AS ('wheel-' || id)", [0, 1, 2, 1], {1, 3}),
        ("state INTEGER, alias TEXT AS ('wheel-' || id)", [0, 1, 2, 1], {1, 3}),
        ("status INTEGER, editor TEXT AS ('wheel-' || id)", [0, 1, 2, 1], set()),
        # sums of bits: 2048 and 8192 say what most rows have not; others are mere numbers
        ("status INTEGER", [2049, 8193, 5, 1], {1, 2, 3}),
        ("status INTEGER", [404, 500, 200], set()),
        ("status INTEGER", [64, 0], set()),
        ("status INTEGER, url_title TEXT AS ('water-wheel-' || id)", [1, 3, 4], {1, 2}),
        ("visible INTEGER NOT NULL", [-2, 0, 1], {1, 2}),
        ("approved TEXT NOT NULL", ["n", "r", "y"], {1, 2}),
        ("member_groups TEXT NOT NULL", ["0,2", "-1,0", "-1,0,2"], {1}),
        ("SECURITY INTEGER", [10100, None], {1}),
        ("draftId INTEGER", [7, None], {1}),
        ("privacy INTEGER", [2, 3, 1], {1, 2}),
        ("CanViewType TEXT", ["LoggedInUsers", "Anyone", "Inherit"], {1}),
        ("viewPolicy TEXT", ["PHID-PROJ-a", "users", "public"], {1, 2}),
        ("page_type TEXT", ["Q_HIDDEN", "A", "Q"], {1}),
        ("status TEXT", ["disapproved", "pending", "approved"], {1, 2}),
        ("kind TEXT", ["note", "first", "reply"], {1}),
        ("publishDate INTEGER", [FUTURE, PAST], {1}),
        ("discontinue_on DATETIME", [DAY, None], {1}),
        ("IsPasswordProtected INTEGER", [1, 0], {1}),
        ("status INTEGER", [3, 2, 1], set()),
        ("ranking INTEGER, slug TEXT AS ('wheel-' || id)", [0, 1, 2, 1], set()),
    ],
)
def test_rows_that_may_not_be_shown_are_no_documents(propose, column, values, hidden):
    made = propose(pages=pages(column, values))
    assert made.shown("pages") == keys(12, map(str, hidden))


@pytest.mark.parametrize(
    ("places", "hides"),
    [([(n, 5, n, n != 3) for n in range(1, 13)], True),
     ([(n, 5, n % 6 + 1, n != 3) for n in range(1, 25)], False)],
    ids=["one for each", "several for one"],
)  # fmt: skip
def test_pages_are_hidden_by_the_row_that_places_each_of_them(propose, places, hides):
    others = [(n + 50, 4, n, n != 8) for n in range(1, 13)]
    columns = "id INTEGER PRIMARY KEY, module INTEGER, instance INTEGER, visible INTEGER NOT NULL"
    modules = "id INTEGER PRIMARY KEY, name TEXT", [(4, "book"), (5, "page")]
    tables = {"mdl_page": pages(), "mdl_book": pages(), "mdl_modules": modules}
    made = propose(**(tables | {"mdl_course_modules": (columns, places + others)}))
    assert len(made.shown("mdl_page")) == (11 if hides else 12)
    assert "8" not in made.shown("mdl_book")


def test_a_table_of_labels_may_begin_with_a_digit(propose):
    links = "page_id INTEGER, tag_id INTEGER, PRIMARY KEY (page_id, tag_id)", [(n, n % 2 + 1) for n in range(1, 13)]
    made = propose(**{"pages": pages(), "3d_tags": names("Water wheels", "Bakers"), "page_tags": links})
    assert [*made.index("pages")["parts"][0]["joins"]] == ["join_3d_tags"]
    assert len(made.shown("pages")) == 12


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
    made = propose(posts=table(is_reply), pages=table(is_reply, "On mill {}"), **others)
    assert len(made.shown("posts")) == 6
    (part,) = made.index("posts")["parts"]
    assert (part["table"], part["on"], part["text"][-1]) == ("posts", "root_id", "body")
    for name in (*others, *["pages"] * (title == "title")):
        assert len(made.shown(name)) == 12, name


def test_a_number_that_is_0_or_1_is_a_flag_if_most_rows_have_1_but_for_what_people_work_off(propose):
    status = ("status INTEGER NOT NULL", [0, 0, 1])
    paid = pages("payment_status INTEGER", [0, 0, 1])
    made = propose(pages=pages(*status), tickets=pages(*status), events=pages("status INTEGER", [1, 0]), orders=paid)
    assert made.shown("pages") == keys(12, "12")
    for table in ("tickets", "events", "orders"):
        assert len(made.shown(table)) == 12, table


def test_a_document_in_each_language_has_the_texts_of_its_language_and_no_older_versions(propose):
    made = propose(**entities())
    page = made.index("node_field_data")
    assert (page["key"], page["title"]) == (["nid", "langcode"], "title")
    body, values = page["parts"]
    assert (body["table"], body["on"]) == ("node__body", ["entity_id", "langcode"])
    assert (values["table"], values["on"]) == ("node__field_parts", {"entity_id": "nid"})
    assert len(made.shown("node_field_data")) == 15
    assert [one.tables[0] for one in made.indexes] == ["node_field_data"]
    assert {"node_revision__body", "node_field_revision"} <= made.left_out.keys()
    assert "node_revision__body" in str(propose(add=["node_revision__body"]).indexes)


def test_what_was_retired_is_left_out_and_what_happened_there_is_not(propose):
    visits = many(59, ward_id=cycle(3), title="Visit {n} of the mill", report=TEXT)
    made = propose(wards=pages("retired INTEGER", [0, 1, 0]), visits=visits)
    assert made.shown("wards") == keys(12, "2")
    assert len(made.shown("visits")) == 59


def test_the_newest_text_of_a_page_is_found_by_a_table_of_links_and_an_address(propose):
    made = propose(**wiki())
    assert [one.tables[0] for one in made.indexes] == ["page"]
    assert made.left_out["text"] == "holds the text of page"
    (part,) = made.index("page")["parts"]
    assert part["on"] == {"slot_revision_id": "page_latest"}
    assert part["joins"]["text"]["on"] == {"tt:{old_id}": "content.content_address"}
    assert made.documents("page") == {n: f"{PROSE} {2 * int(n)}" for n in keys(20, "3")}


@pytest.mark.parametrize(("first", "hidden", "parent"), [(7000, 0, "machines"), (1, 0, None), (7000, 1, None)])
def test_values_with_a_prefix_name_shown_rows_of_the_only_table_that_has_their_numbers(propose, first, hidden, parent):
    machines = many(12, name="Machine {n} of oak", **({"hidden": lambda n: n % 2} if hidden else {}))
    machines = machines[0], [(first + n - 1, *rest) for n, *rest in machines[1]]
    made = propose(pages=pages("about TEXT", [f"m:{first + n}" for n in range(12)]), machines=machines,
                   wheels=many(24, name="Wheel {n} of oak"))  # fmt: skip
    joins = made.index("pages").get("joins", {})
    assert [join["table"] for join in joins.values()] == ([parent] if parent else [])


def test_conversations_between_persons_are_hidden_with_their_type_and_what_is_in_a_hidden_category_too(propose):
    """Private topics have no category, which hides no other; a list of featured topics names categories as well."""
    kinds = {"archetype": lambda n: "regular" if n < 10 else "private_message"}
    category = {"category_id": lambda n: n % 3 + 1 if n < 10 else None}
    made = propose(
        topic=many(12, title="Topic {n} of the mill", body=TEXT, **kinds, **category, kinds={"category_id": "INTEGER"}),
        category=(
            "id INTEGER PRIMARY KEY, name TEXT, read_restricted INTEGER",
            [(1, "Mills", 0), (2, "Wheels", 0), (3, "Bakers", 1)],
        ),
        category_topic=(
            "category_id INTEGER, topic_id INTEGER, PRIMARY KEY (category_id, topic_id)",
            [(n % 3 + 1, n) for n in range(1, 10)],
        ),
    )
    assert made.shown("topic") == keys(9, "258")


def test_a_flag_for_what_can_be_done_with_a_row_hides_none(propose):
    posts, boards = pages("comments_enabled INTEGER", [0, 1, 0]), pages("board_enabled INTEGER", [1, 0, 1])
    made = propose(posts=posts, boards=boards)
    assert (len(made.shown("posts")), len(made.shown("boards"))) == (12, 11)


def test_a_product_with_texts_by_number_of_language_is_a_document_in_each_with_its_reviews(propose):
    made = propose(**shop())
    product = made.index("ps_product_lang")
    assert product["key"] == ["id_product", "id_shop", "id_lang"]
    assert (product["title"], product["text"]) == ("name", ["description", "meta_title", "product.reference"])
    assert made.parts("ps_product_lang") == ["ps_product_comment", "ps_feature_product"]
    assert product["parts"][1]["on"] == {"id_product": "id_product", "feature_value.id_lang": "id_lang"}
    assert len(made.shown("ps_product_lang")) == 22  # the product that is not active is in neither
    assert not [one.tables for one in made.indexes if "parts" in one.settings and one.tables[0] == "ps_carrier_lang"]


@pytest.mark.parametrize("later", [False, True], ids=["at once", "one day"])
def test_what_is_below_a_page_for_which_one_has_to_log_in_is_hidden(propose, later):
    tables = cms()
    if later:
        restriction = "id INTEGER PRIMARY KEY, page_id INTEGER REFERENCES page (id)"
        tables["page_view_restriction"] = (restriction, [])
    made = propose(**tables)
    engine = sa.create_engine(propose.url)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO page_view_restriction (id, page_id) VALUES (2, 3)")
    engine.dispose()
    assert made.shown("page") == keys(30, "34")


def test_a_thing_is_hidden_by_the_row_of_its_kind(propose):
    kinds = {
        name: (f"id INTEGER PRIMARY KEY REFERENCES entity (id), {column} TEXT, state TEXT",
               [(n, f"{PROSE} of {n}", "Draft" if n % 10 == 7 else "Published") for n in range(first, first + 10)])
        for name, column, first in [("faq", "answer", 1), ("ticket", "solution", 11), ("quote", "terms_text", 21)]
    }  # fmt: skip
    made = propose(entity=many(30, label="Wheel {n}", description=TEXT), **kinds)
    assert made.shown("entity") == keys(30, ["7", "17", "27"])


def test_a_category_contains_products_and_is_a_label_of_them_but_for_those_that_are_not_available_yet(propose):
    made = propose(**wheel_shop())
    found = {one.tables[0]: str(one.settings.get("parts")) for one in made.indexes}
    assert "product" not in found["category_description"]
    assert "category" in found["product_description"]
    assert not {"[3,1]", "[3,2]"} & made.shown("product_description")


def test_bugs_have_notes_and_texts_of_tables_of_their_own_whatever_all_tables_end_with(propose):
    """In the way of MantisBT."""
    bug_columns = {"bug_text_id": itself, "view_state": lambda n: 50 if n == 7 else 10}
    note_columns = {"bug_id": cycle(24), "bugnote_text_id": itself}
    made = propose(
        mantis_bug_table=many(24, project_id=cycle(3), **bug_columns, summary="The wheel {n} creaks"),
        mantis_bug_text_table=many(24, description=TEXT, steps_to_reproduce="Turn wheel {n} and wait"),
        mantis_bugnote_table=many(48, **note_columns, view_state=lambda n: 50 if n == 9 else 10),
        mantis_bugnote_text_table=many(48, note=f"<p>{PROSE}, note {{n}}</p>"),
        mantis_project_table=many(3, name="Mill {n}", description=f"{PROSE} in mill {{n}}"),
        mantis_custom_field_table=names("Machine", "Workaround"),
        mantis_custom_field_string_table=(
            "field_id INT, bug_id INT, value TEXT, PRIMARY KEY (field_id, bug_id)",
            [(n % 2 + 1, n, f"Wheel of stone {n}") for n in range(1, 25)],
        ),
    )
    assert {one.tables[0]: one.name for one in made.indexes} == {
        "mantis_bug_table": "bug",
        "mantis_project_table": "project",
    }
    bug = made.index("mantis_bug_table")
    assert (bug["title"], bug["where"]) == ("summary", "view_state = 10")
    assert bug["text"][:2] == ["bug_text.description", "bug_text.steps_to_reproduce"]
    note, field = bug["parts"]
    assert (note["table"], note["where"]) == ("mantis_bugnote_table", "view_state = 10")
    (text,) = note["text"]
    assert note["format"] == {text: "html"}
    assert field["text"] == "{custom_field.name}: {value}"
    texts = made.documents("mantis_bug_table").values()
    assert sum(text.count(", note ") for text in texts) == 45  # one is for few, two are of a bug that is


@pytest.mark.parametrize(
    ("states", "hidden"),
    [(["Approved", "Pending", "Not Approved"], "23"), (["Open", "Closed", "Deleted"], "3"),
     (["New", "Waiting", "Closed"], ""), (["Open", "Pending", "On hold"], "")],
)  # fmt: skip
def test_rows_are_hidden_by_what_their_state_is_called_in_a_table_of_its_own(propose, states, hidden):
    tickets = many(24, title="Wheel {n}", body=TEXT, status_id=lambda n: n if n <= 3 else 1)
    made = propose(ticket=tickets, ticket_status=names(*states, key="status_id", name="status_code"))
    assert made.shown("ticket") == keys(24, hidden)


def test_versions_of_some_rows_are_no_documents_of_rows_whose_text_another_table_holds(propose):
    made = propose(
        bug=many(24, bug_text_id=itself, summary="The wheel {n} creaks"),
        bug_text=many(24, description=TEXT),
        bug_revision=many(6, bug_id=itself, value=f"{PROSE} as it was {{n}}"),
    )
    assert [one.tables[0] for one in made.indexes] == ["bug"]
    assert len(made.shown("bug")) == 24


def test_what_holds_parts_and_has_no_text_leads_to_what_they_are_parts_of(propose):
    commits = many(
        48, merge_request_diff_id=cycle(24), message=f"{PROSE} in commit {{n}}",
        kinds={"merge_request_diff_id": "INT REFERENCES merge_request_diffs (id)"},
    )  # fmt: skip
    made = propose(
        merge_requests=many(24, title="Request {n} of the mill", description=TEXT),
        merge_request_diffs=many(24, merge_request_id=lambda n: 25 - n, files=itself),
        merge_request_diff_commits=commits,
    )
    assert [one.tables[0] for one in made.indexes] == ["merge_requests"]
    (part,) = made.index("merge_requests")["parts"]
    assert (part["table"], part["on"]) == ("merge_request_diff_commits", "merge_request_diffs.merge_request_id")
    assert len(made.shown("merge_requests")) == 24


def test_rows_with_keys_in_words_are_searched_where_there_is_nothing_else(propose):
    """They look like what came with an application."""
    parts = ("mill", "wheel", "stone", "sack", "river")
    rows = [(f"{one}-of-{other}", f"How is the {one} of the {other} mended?", TEXT) for one in parts for other in parts]
    made = propose(faq=("id TEXT PRIMARY KEY, question TEXT, answer TEXT", rows))
    assert [one.tables[0] for one in made.indexes] == ["faq"]


def test_of_people_who_log_in_names_and_what_they_write_are_searched_and_no_code(propose):
    """In the way of SMF and GitLab."""
    people = {
        "member_name": "m{n}", "passwd": "x{n}", "real_name": "Miller Number {n}",
        "email": "m{n}@mill.org", "validation_code": "kez{n}la",
        "security_question": "What was the name of pet {n}?", "remember": "4f{n}e", "wifi": "wind{n}mill",
        "signature": TEXT,
    }  # fmt: skip
    account = propose(members=many(24, **people)).index("members")
    assert (account["title"], account["text"], account.get("payload", [])) == ("real_name", ["signature"], [])
    staff = many(24, name="Miller Number {n}", password="x{n}", about=TEXT)
    rows = [(f"E-{1000 + number}", *row) for number, (_, *row) in enumerate(staff[1])]
    made = propose(employees=("code TEXT PRIMARY KEY, name TEXT, password TEXT, about TEXT", rows))
    assert "code" not in made.secrets["employees"], "the key of a person is no secret: it is shown as the id"
    kept = scaffold(propose.url.render_as_string(hide_password=False), uses={"members.member_name": "text"})
    [kept] = [one.settings for one in kept.proposal.indexes if one.tables[0] == "members"]
    assert "member_name" in {kept["title"], *kept["text"]}, "what a person chose stays"


def test_rows_that_a_table_links_with_a_group_of_persons_are_for_that_group(propose):
    """In the way of Bugzilla, which also has a copy for searching, and passwords called `cryptpassword`."""
    people = {"login_name": "m{n}", "cryptpassword": "x{n}", "realname": "Miller Number {n}", "why": TEXT}
    groups = "group_id INT REFERENCES groups (id)"
    copied = many(
        24, "bug_id", comments=f"{PROSE} copied {{n}}", kinds={"bug_id": "INTEGER PRIMARY KEY REFERENCES bugs (bug_id)"}
    )
    made = propose(
        bugs=many(24, "bug_id", short_desc="The wheel {n} creaks", body=TEXT),
        profiles=many(8, "userid", **people),
        groups=many(3, name="masters {n}"),
        user_group_map=(f"user_id INT REFERENCES profiles (userid), {groups}", [(n, n % 3 + 1) for n in range(1, 9)]),
        bug_group_map=(f"bug_id INT REFERENCES bugs (bug_id), {groups}", [(3, 1), (7, 2)]),
        bugs_fulltext=copied,
        keywords=many(4, name="noise {n}", description=TEXT),
        bug_keywords=(
            "bug_id INT REFERENCES bugs (bug_id), keyword_id INT REFERENCES keywords (id)",
            [(n, n % 4 + 1) for n in range(1, 25)],
        ),
    )
    assert made.shown("bugs") == keys(24, "37")
    assert made.index("bugs")["title"] == "short_desc"
    account = made.index("profiles")  # who logs in is a person like others, without what it takes to log in
    assert (account["title"], account["text"]) == ("realname", ["why"])
    assert not {"login_name", "cryptpassword"} & {*account["payload"]}
    assert "bugs_fulltext" in made.left_out
    assert "bugs_fulltext" not in str(made.indexes)
    assert "parts" not in made.index("keywords")  # the bugs of a keyword are no labels of it


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
        **{
            "tabBrand": (f"{key}, description TEXT", [(f"Brand {n}", f"{PROSE} {n}") for n in range(3)]),
            "tabItem": (f"{key}, item_name TEXT, description TEXT, brand TEXT", items),
            "tabSales Order": (f"{key}, title TEXT, terms TEXT, docstatus INT", orders),
            "tabCommunication": (f"{key}, subject TEXT, content TEXT, {other}", said),
        }
    )
    assert made.index("tabItem")["title"] == "item_name"
    (part,) = made.index("tabSales Order")["parts"]
    assert (part["table"], part["on"]) == ("tabCommunication", "reference_name")
    assert part["where"] == "reference_doctype = 'Sales Order' AND email_status NOT IN ('Trash')"
    assert made.shown("tabSales Order") == {f'"SO-{n}"' for n in range(1, 13)} - {'"SO-5"'}
    assert "modified_by" not in str(made.indexes)


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
    made = propose(**FORUM)
    assert made.shown("topics") == {str(n) for n in range(1, 15) if n % 4 != 1}
    assert made.parts("topics") == ["posts", "tag_topic"]
    assert "joins" not in made.index("topics")
    assert [one.tables[0] for one in made.indexes] == ["topics"]
    assert made.left_out["dialog_messages"] == "belongs to what few persons may see"


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
    made = propose(**CMS)
    assert [one.tables[0] for one in made.indexes] == ["page"]
    (part,) = made.index("page")["parts"]
    assert (part["table"], part["on"], part["text"]) == ("text_block", "place.object_id", ["body"])
    assert part["joins"] == {
        "block": {"table": "block", "on": "block_ptr_id", "required": True},
        "place": {"table": "place", "on": "block.place_id", "required": True, "where": "content_type_id = 7"},
    }
    assert made.shown("page") == keys(12, "456")


def test_a_flag_of_the_comments_hides_no_page(propose):
    code = {"code": lambda n: ("ANSWER", "MSG_PRIVATE")[n % 5 == 0]}
    comments = many(29, page_id=cycle(12), body=f"{{n}} says: {PROSE}", **code)
    made = propose(pages=pages("comments_hidden INTEGER", [1, 0]), comments=comments)
    assert len(made.shown("pages")) == 12
    assert made.index("pages")["parts"][0]["where"] == "code IN ('ANSWER')"


def test_tasks_are_shown_though_they_are_done_and_an_office_alone_sees_some_remarks(propose):
    """A short word may name a table, and a limit or an owner names none. A box may be in no dashboard."""
    task = {"name": "Task {n} of the mill", "body": TEXT}
    task |= {"is_active": lambda n: n % 3, "access": lambda n: 1 + (n == 5)}
    said = {"visibility": lambda n: ("app-user", "app-admin")[n % 7 == 0], "display_to_customer": lambda n: n % 2}
    box = {"task_limit": itself, "hide_in_dashboard": lambda n: int(n == 2)}
    made = propose(
        users=many(8, username="user {n}", password="x"),
        categories=many(4, title="Category {n}"),
        lanes=many(8, name="Lane {n}", is_active=lambda n: int(n != 8)),
        boxes=many(4, title="Box {n}", **box),
        tasks=many(30, catid=cycle(4), box_id=cycle(4), owner_id=cycle(8), **task),
        comments=many(60, task_id=cycle(30), body=f"{{n}}: {PROSE}", **said),
    )
    tasks = made.index("tasks")
    assert {join["table"] for join in tasks["joins"].values()} == {"categories", "boxes"}
    assert made.shown("tasks") == keys(30, "5")
    assert tasks["parts"][0]["where"] == "visibility NOT IN ('app-admin') AND display_to_customer = 1"


def test_posts_of_a_kind_that_few_have_are_not_for_all(propose):
    kinds = many(40, topic_id=cycle(20), body=TEXT, post_type=lambda n: 4 if n == 7 else 1)
    made = propose(topics=many(20, title="Topic {n} of the mill"), posts=kinds)
    assert PROSE + " 7" not in "".join(map(str, made.documents("topics").values()))


def test_the_thread_of_a_ticket_is_found_by_a_letter_and_notes_of_those_who_answer_are_left_out(propose):
    of = {"object_id": lambda n: n if n <= 20 else n - 20, "object_type": lambda n: "T" if n <= 20 else "A"}
    entry = {"thread_id": lambda n: (n - 1) // 3 + 1, "type": lambda n: "MRN"[n % 3]}
    made = propose(
        ticket=many(20, "ticket_id", number=lambda n: f"{n:06}"),
        ticket__cdata=many(20, "ticket_id", subject="Ticket {n} of the mill"),
        thread=many(25, **of),
        thread_entry=many(75, **entry, body=TEXT),
    )
    texts = made.documents("ticket")
    assert len(texts) == 20
    assert ["1" in str(texts["1"]), f"{PROSE} 2" in str(texts["1"])] == [True, False]  # the second is a note


@pytest.mark.parametrize("seed", range(12))
def test_whatever_names_a_hidden_row_is_hidden_with_it_in_every_index_and_nothing_else_is(propose, seed):
    random = Random(seed)
    tables = {"space": many(6, name="Space {n}", body=TEXT, is_public=lambda n: int(n != 4))}
    hidden = {"space": {4}}
    for called in ("page", "list", "task", "remark", "step")[: random.randint(2, 5)]:
        above, optional, sparse = random.choice([*hidden]), random.random() < 0.5, random.random() < 0.4
        count, of = random.randint(9, 30), len(tables[above][1])
        named = {n: random.randint(1, of) if n > 8 or not (optional and sparse) else None for n in range(1, count + 1)}
        hidden[called] = {n for n, one in named.items() if one in hidden[above]}
        said = {n: "Fernwood" if n in hidden[called] else "everyday" for n in named}
        columns, rows = many(
            count, title=called + " {n} of the mill", body=lambda n, said=said: f"{PROSE}, {said[n]} {n}"
        )
        tables[called] = (
            f"{columns}, {above}_id INTEGER REFERENCES {above} (id)",
            [(*row, named[row[0]]) for row in rows],
        )
    made = propose(**tables)
    texts = [text for one in made.indexes for text in made.documents(one.tables[0]).values()]
    assert not [text for text in texts if "Fernwood" in text]
    said = " ".join(texts)
    assert not [n for one in hidden for n, *_ in tables[one][1] if n not in hidden[one] and f"everyday {n}" not in said]


@pytest.mark.parametrize(
    ("table", "column", "types", "wanted"),
    [
        ("product", "product_type", ["bottle", "robot", "botany", "draft beer", "internal disk"], 5),
        ("product", "type", ["system", "template", "log", "wood"], 4),
        ("orders", "kind", ["INPATIENT", "OUTPATIENT"], 2),
        ("posts", "post_type", ["post", "page", "nav_menu_item", "revision"], 2),
        ("note", "note_type", ["note", "internal_note", "private message"], 1),
    ],
)
def test_a_type_is_judged_by_whole_words_and_only_if_it_says_what_kind_of_content_a_row_is(
    propose, table, column, types, wanted
):
    rows = many(60, title="Thing {n} of the mill", body=TEXT, **{column: lambda n: types[n % len(types)]})
    assert len(propose(**{table: rows}).shown(table)) == 60 * wanted // len(types)


@pytest.mark.parametrize(("owners", "left"), [("agent", 12), ("folder", 0)])
def test_an_organisation_that_is_not_published_hides_nothing_that_merely_names_it(propose, owners, left):
    """In the way of ArchivesSpace: a repository stands for an organisation. What is in a folder is hidden with it."""
    made = propose(**{
        owners: many(12, name="House {n}", publish=lambda n: int(n > 2)),
        "repository": many(2, name="Archive {n} of it", description=TEXT, publish=1, **{f"{owners}_id": itself}),
        "record": many(12, title="Record {n} of it", body=TEXT, publish=1, repository_id=cycle(2)),
    })  # fmt: skip
    assert len(made.shown("record")) == left


def test_a_table_of_which_no_row_is_published_is_left_out_where_others_are(propose):
    """A flag that no row of any table has is not used, and hides none."""
    record, gift = pages("publish INTEGER", [0, 1]), pages("publish INTEGER", [0])
    box = many(24, name="Box {n}", gift_id=cycle(12), note=TEXT)
    made = propose(record=record, gift=gift, box=box)
    assert made.left_out["gift"].startswith("has no row that may be shown")
    assert not made.shown("box")
    assert len(propose(other=pages("online INTEGER", [0])).shown("other")) == 12


def test_a_time_of_approval_that_next_to_no_row_has_hides_none(propose):
    """In the way of CKAN: what somebody changed is not approved, but for two changes at its setup."""
    made = propose(
        revision=many(40, message="Change {n} of it", approved_at=lambda n: DAY if n < 3 else None),
        resource=many(40, name="File {n} of it", description=TEXT, revision_id=itself),
    )
    assert made.shown("resource") == keys(40)


@pytest.mark.parametrize(("state", "left"), [("draft", 9), ("withdrawn", 1)])
def test_what_is_published_is_shown_though_its_text_is_called_a_draft(propose, state, left):
    """In the way of OPUS: `publication_state` says which version of a text a published record has."""
    states = {"server_state": lambda n: "published" if n < 10 else "deleted"}
    states["publication_state"] = lambda n: "proof" if n in (3, 11) else state
    assert len(propose(record=many(12, title="Record {n} of it", body=TEXT, **states)).shown("record")) == left
