"""Tables that `init` proposes no index for, with the reason, and columns that are secret, personal or unclear."""

from hashlib import sha1
from random import Random

import pytest

from tests.schema.proposals import PROSE, TEXT, cms, cycle, itself, many, names, pages, wiki

ORDER = "INTEGER PRIMARY KEY REFERENCES orders(id)"
PROPERTIES = f"property TEXT PRIMARY KEY, property_value TEXT, {', '.join(f'{name} TEXT' for name in 'abcdef')}"


def properties(name):
    """Return a table of settings that has more columns than names and values."""
    return PROPERTIES, [(f"{name}.{n}", f"Wheel-{n}", f"{PROSE} {n}", *[f"Mill no. {n}"] * 5) for n in range(1, 13)]


LEFT_OUT = [
    ({"memos": pages("personal INTEGER", [1], count=2), "pages": pages("hidden INTEGER", [0])}, "memos",
     "has no row that may be shown: personal says who may see a row"),
    ({"mill_values": properties("mail.password")}, "mill_values", "holds settings: names with values"),
    ({"drugs": pages(), "orders": pages(), "drug_orders": many(
        12, "order_id", drug_id=cycle(3), instructions=f"Take it as told: {TEXT}", kinds={"order_id": ORDER})},
     "drug_orders", "is a part of orders"),
    (wiki("es:99"), "text", "holds texts, and no column says of what they are and which of them count"),
    ({"pages": pages(), "api_keys": many(
        12, description="The key of mill no. {n}", truncated_key=lambda n: f"{n:07x}",
        consumer_key=lambda n: f"ck_{sha1(bytes([n])).hexdigest()}")}, "api_keys", "holds keys"),
    ({"pages": pages(), "keys": many(24, title="Laptop {n} of the miller", key=TEXT, fingerprint="ab:{n}")}, "keys",
     "holds keys"),
    ({"page": pages(), "incoming": many(
        12, raw=f"From: kim{{n}}@mill.example\nTo: desk@mill.example\nSubject: Wheel\n\n{TEXT}")},
     "incoming", "has no text"),
    ({"posts": pages(), "reports": many(12, post_id=itself, report_text=f"Spam: {TEXT}")}, "reports",
     "holds what moderators are told"),
    ({"pages": pages(), "messages": many(20, useridfrom=cycle(5), useridto=cycle(4), body=TEXT)}, "messages",
     "holds messages between persons, notes of one, or drafts"),
]  # fmt: skip


@pytest.mark.parametrize(("tables", "table", "reason"), LEFT_OUT)
def test_a_table_whose_rows_nobody_looks_for_or_may_see_is_left_out(propose, tables, table, reason):
    assert propose(**tables).left_out[table] == reason


def test_an_id_may_be_written_together_with_its_noun_and_a_flag_is_none(propose):
    made = propose(
        entries=pages("maker TEXT", ["ACME"]),
        entry_remarks=many(30, entryid=cycle(12), body=TEXT, latest=lambda n: n % 2),
        entry_versions=many(30, entryid=cycle(12), content=TEXT),
    )
    (part,) = made.index("entries")["parts"]
    assert (part["table"], part["on"]) == ("entry_remarks", "entryid")
    assert made.left_out["entry_versions"] == "holds older versions of rows"


def test_a_foreign_key_may_be_spelled_in_another_case_and_one_that_names_no_key_is_none(propose):
    """SQLite takes both, in Umbraco's tables and in those of a student."""
    columns, rows = many(12, note=TEXT, page=itself, pair=1)
    made = propose(
        Pages=pages(),
        pairs=("a INTEGER, b INTEGER, PRIMARY KEY (a, b)", [(1, 2)]),
        remarks=(f"{columns}, FOREIGN KEY (page) REFERENCES pages (ID), FOREIGN KEY (pair) REFERENCES pairs", rows),
    )
    assert made.parts("Pages") == ["remarks"]


def test_random_ids_are_no_secrets_and_no_order(propose):
    ids = [f"q7w{n:02d}e9r8t1y5u3i2o6p4a7s" for n in range(13)]
    remarks = [(ids[n], ids[13 - n], f"Said: {PROSE} {n}", n) for n in range(1, 13)]
    made = propose(
        pages=(
            "id TEXT PRIMARY KEY, title TEXT, body TEXT",
            [(ids[n], f"Page {n} of the mill", f"{PROSE} {n}") for n in range(1, 13)],
        ),
        remarks=("id TEXT PRIMARY KEY, page_id TEXT, body TEXT, create_at INTEGER", remarks),
    )
    assert (made.secrets, made.index("pages")["key"]) == ({}, "id")
    assert made.index("pages")["parts"][0]["order_by"] == ["create_at", "id"]


def test_a_part_whose_document_is_left_out_becomes_a_document(propose):
    ticket = many(12, subject="The mill is silent {n}")
    made = propose(ticket=ticket, remark=many(30, ticket_id=cycle(12), body=TEXT), include=["remark"])
    assert [one.tables[0] for one in made.indexes] == ["remark"]
    assert made.left_out["ticket"] == "is not included"


def test_messages_of_conversations_between_persons_and_notes_of_one_are_left_out(propose):
    """Where a conversation is no conversation of messages, it may be one with customers."""
    messages = f"{PROSE} in hour {{n}}"
    made = propose(
        conversations=pages(),
        message_conversations=many(12, title="Talk {n}", body="Hush! {n}"),
        messages=many(36, message_conversation_id=cycle(12), fullmessage=messages),
        replies=many(36, conversation_id=cycle(12), fullmessage=messages),
        reminders=pages(),
    )
    assert made.left_out["messages"] == "belongs to what few persons may see"
    assert made.left_out["reminders"] == "holds messages between persons, notes of one, or drafts"
    assert [one.tables[0] for one in made.indexes] == ["conversations"]


@pytest.mark.parametrize(
    ("kind", "values"), [("INTEGER", [4, 3, 3, 1]), ("CHAR(1)", ["R", "N", "N", "M"])], ids=["numbers", "letters"]
)
def test_codes_that_may_hide_rows_are_said_if_nothing_tells_what_they_mean(propose, kind, values):
    """A whisper among staff is of type 4, and a closing note of type 3; nothing in the schema says which is which."""
    [page] = propose(pages=pages(f"page_type {kind}", values, 1200)).indexes
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
    [page] = propose(pages=pages(column, values)).indexes
    assert page.unclear == []


def test_why_a_row_was_hidden_is_not_shown(propose):
    made = propose(pages=pages("delete_reason TEXT", ["It names a man in the village", "It insults the miller"]))
    assert made.personal == {"pages": ["delete_reason"]}
    assert "delete_reason" not in str(made.index("pages"))


def test_a_rendered_copy_of_a_text_is_left_out(propose):
    html = f"<p>{PROSE}. <b>No.</b> {{n}}.</p>"
    made = propose(pages=many(12, title="Page {n} of the mill", body=f"{PROSE}. No. {{n}}.", body_html=html))
    assert made.index("pages")["text"] == ["body"]


@pytest.mark.parametrize(
    ("kind", "count", "is_part"),
    [("stage", 40, False), ("stage", 8, True), ("task", 8, False)],
    ids=["many for each project", "few for each project", "tasks, however few"],
)
def test_rows_with_titles_and_texts_are_documents_if_what_contains_them_contains_many(propose, kind, count, is_part):
    made = propose(
        **{
            "project_project": many(4, name="Mill {n}", description=PROSE),
            f"project_{kind}": many(count, project_id=cycle(4), name="Work no. {n} of it", description=TEXT),
        }
    )
    assert (f"project_{kind}" in made.left_out) is is_part


@pytest.mark.parametrize(
    ("name", "title", "is_document"),
    [("category", "Wheel {n}", True), ("page_type", "Wheel {n}", False), ("word", None, False)],
)
def test_a_few_things_with_a_description_are_documents_and_kinds_are_none(propose, name, title, is_document):
    few = many(4, name=title, description="Sacks, ropes and no. {n}")
    made = propose(**{"pages": pages(f"{name}_id INTEGER", [1, 2, 3, 4]), name: few})
    assert (name in made.left_out) is not is_document


def test_pages_of_all_kinds_have_their_own_texts_and_no_version_of_them(propose):
    made = propose(**cms(kinds=12))
    page = made.index("page")
    assert (len(page["parts"]), "text" in page) == (12, False)
    assert page["payload"] == []  # the title of a draft is none
    assert made.left_out["search_index_entry"] == "is for programs, by its name"


def test_notes_that_name_a_patient_are_no_parts_of_a_table_called_like_theirs(propose):
    """`pid` of `form_soap` may be a row of `form`, by its name, which has a `pid` of its own."""
    patients = [(n, n, f"Kim {n}", f"Miller {n}") for n in range(1, 13)]
    made = propose(
        forms=many(48, pid=cycle(12), form_name="Sheet {n} of the mill"),
        form_soap=many(24, pid=cycle(12), plan=TEXT),
        patient_data=("id INTEGER, pid INTEGER NOT NULL UNIQUE, fname TEXT, lname TEXT", patients),
    )
    assert "form_soap" not in [table for one in made.indexes if one.tables[0] == "forms" for table in one.tables]
    assert "has no primary key" not in str(made.left_out)


def test_tables_with_copies_of_texts_are_left_out(propose):
    texts = [f"{text} {PROSE}, and {text} asked for it" for text in ("Anna", "Bob", "Cleo", "Dan", "Eve", "Finn")]
    kept = {"body": lambda n: texts[n % 6] if n > 3 else f"{n} was the first draft. {PROSE}"}
    sent = {"html": lambda n: f"<p>{texts[n - 1]}</p>", "plain": lambda n: f"Hello! {texts[n - 1]}"}
    made = propose(
        stories=many(6, title="Story {n} of the mill", body=lambda n: texts[n - 1]),
        story_journals=many(19, place=cycle(6), **kept),
        mailings=many(6, story_id=itself, subject="News {n} of the mill", **sent),
    )
    assert [one.tables for one in made.indexes] == [["stories"]]
    assert made.left_out == dict.fromkeys(["story_journals", "mailings"], "holds copies of the texts of stories")


def test_posts_whose_titles_are_those_of_their_pictures_are_no_copies(propose):
    title = "How the mill of {n} at the pond behind the church came to have another wheel of wood before winter"
    post = many(12, title=title, body=f"{TEXT}. {TEXT}", media_id=itself)
    made = propose(media=many(12, alt=title, filename="picture-{n}.png"), blog_post=post)
    assert len(made.shown("blog_post")) == 12


def test_a_table_with_the_long_keys_of_a_larger_one_holds_more_of_its_rows(propose):
    oid = [f"{n:030}" for n in range(1, 13)]
    things = (
        "oid TEXT PRIMARY KEY, title TEXT, about TEXT",
        [(one, f"Mill {one}", f"It is {one}. {PROSE}") for one in oid],
    )
    made = propose(things=things, further=("oid TEXT PRIMARY KEY, body TEXT", [(one, PROSE + one) for one in oid]))
    assert made.parts("things") == ["further"]


def test_paths_of_files_are_no_text_though_their_folders_have_words_with_spaces(propose):
    place = "/mnt/board/Miller, Anna/Mills of {n}.epub"
    made = propose(shortcut=many(12, place=place), book=many(12, title="Mill {n}", text=TEXT))
    assert made.left_out["shortcut"] == "has no text"


def test_texts_in_another_language_are_no_copies(propose):
    texts = [f"{PROSE} {name}" for name in ("Anna", "Bob", "Cleo", "Dan")]
    rows = [(n, language, f"Titel {n}", text) for n, text in enumerate(texts, 1) for language in ("en", "de")]
    columns = "id INTEGER, lang TEXT, title TEXT, body TEXT, PRIMARY KEY (id, lang)"
    stories = many(4, title="T {n}", body=lambda n: texts[n - 1])
    made = propose(stories=stories, story_texts=(columns, rows))
    assert "copies" not in made.left_out["story_texts"]


def test_names_with_addresses_are_personal(propose):
    sender = "Bakers of the mill <baker{n}@mill.example>"
    articles = many(12, ticket_id=itself, **{"from": sender}, body=TEXT)
    made = propose(tickets=many(12, title="Ticket {n} of it"), articles=articles)
    assert made.index("tickets")["parts"][0]["text"] == ["body"]
    assert made.personal["articles"] == ["from"]


def test_things_that_are_sold_are_searched_though_they_have_names_alone_and_others_refer_to_them(propose):
    sold = {"name": "Wheel {n} of oak", "number": "FR-{n}9B-R", "list_price": itself}
    made = propose(pages=pages(), product=many(30, **sold), lines=many(60, product_id=cycle(30), quantity=itself))
    assert made.index("product")["title"] == "name"
    assert {one.name: one.columns for one in made.tables}["product"] == {"name": "title", "number": "text"}


def test_subjects_that_are_sentences_are_searched_though_their_rows_have_no_text(propose):
    subjects = {"subject": lambda n: f"Re: the wheel of mill {n} has stopped again"}
    made = propose(pages=pages(), mail=many(200, **subjects), recipients=many(300, mail_id=cycle(200), number=itself))
    assert made.index("mail")["title"] == "subject"
    assert [(one.tables, one.guess) for one in made.questions] == [(("mail",), True)]


def test_the_address_of_a_company_is_text_and_that_of_a_person_is_personal(propose):
    address, named = {"address": "{n} Mill Lane, York", "phone": "+44 1904 {n}"}, "Company {n} of mills"
    made = propose(
        customers=many(24, company_name=named, contact_name="Ann {n}", **address),
        offices=many(24, name=named, **address),
        store_buyers=many(24, name="Ann {n}", notes=TEXT, **address),
        user_locations=many(24, user_id=itself, name="Home of {n}", notes=TEXT, **address),
    )
    assert {name for name, columns in made.personal.items() if "address" in columns} == {
        "store_buyers",
        "user_locations",
    }
    assert all("phone" in columns for columns in made.personal.values())
    assert all("address" in made.index(table)["text"] for table in ("customers", "offices"))


def test_names_of_files_that_are_made_of_words_are_text(propose):
    files = {"filename": "Plan of the mill {n}.pdf", "stored_path": "/srv/files/{n}.bin"}
    made = propose(tickets=pages(), ticket_attachments=many(24, ticket_id=cycle(12), **files))
    assert made.index("tickets")["parts"][0]["text"] == ["filename"]


def test_tables_with_names_alone_are_asked_about_together_unless_their_names_are_shown(propose):
    names_alone = {"ship_name": "Company {n} of the mill", "clerk_id": cycle(3)}
    made = propose(
        pages=many(12, title="Page {n} of it", body=TEXT, maker_id=cycle(3)), makers=names("Mill", "Weir", "Sluice"),
        orders=many(200, **names_alone), clerks=names("Ann", "Bob", "Cleo"),
        items=many(300, order_id=cycle(200), number=itself),
    )  # fmt: skip
    assert [(one.tables, one.guess) for one in made.questions] == [(("orders", "clerks"), False)]


def a_sentence(n):
    """Return a text of its own for each number."""
    return " ".join(Random(n).choices(WORDS, k=12))


WORDS = "river mill wheel stone barley window ladder harbor lantern copper garden winter bridge saddle orchard".split()


def test_whatever_holds_a_good_share_of_the_text_is_searched_though_its_name_speaks_against_it(propose):
    """A log is not, whose texts repeat, and a name is reached by the rows that name it, at two steps."""
    made = propose(
        tokens=many(60, description=a_sentence),
        job_log=many(300, message="Job {n} of the night ended with 0 after {n} s"),
        text=many(60, "text_id", text=lambda n: a_sentence(n + 100)),
        artist=many(20, name="The Wheels {n}"),
        album=many(50, title="Mill and weir {n}", artist_id=cycle(20)),
        track=many(300, name="River song {n} of all", album_id=cycle(50)),
    )
    assert {one.tables[0] for one in made.indexes} == {"tokens", "text", "track"}
    assert "The Wheels 7" in made.documents("track")["5"]
    assert made.coverage.share > 0.97


TRAC = ("name TEXT, version INTEGER, text TEXT, UNIQUE (name, version)",
        [(f"Page {n // 2}", n % 2, a_sentence(n)) for n in range(60)])  # fmt: skip
ANYTHING = ("id INTEGER PRIMARY KEY, value UNIQUE", [(n, a_sentence(n) if n % 3 else n) for n in range(60)])
LINES = ("note_id INTEGER, line INTEGER, text TEXT", [(n // 3 + 1, n % 3, a_sentence(n)) for n in range(60)])
LAW = ("chapter INTEGER, section TEXT, heading TEXT, description TEXT",
       [(n // 20 + 1, f"{n % 20}A", f"Mill {n % 7}", a_sentence(n)) for n in range(60)])  # fmt: skip


@pytest.mark.parametrize(
    ("tables", "table", "count"),
    [
        ({"wiki": TRAC}, "wiki", 30),
        ({"data_values": ANYTHING}, "data_values", 40),
        ({"law": LAW}, "law", 60),
        ({"note": many(20, patient_id=cycle(5)), "note_line": LINES}, "note", 20),
        ({"page": many(60, page_id=itself, title="Mill"), "lines": LINES}, "lines", 60),
    ],
    ids=[
        "a unique index without NULL",
        "values without a type",
        "short values that are unique together",
        "lines without a key",
        "a key that nobody declared",
    ],
)
def test_texts_are_found_though_their_key_or_their_type_is_not_declared(propose, tables, table, count):
    made = propose(**tables)
    assert (len(made.documents(table)), round(made.coverage.share, 1)) == (count, 1)


def test_answers_are_parts_of_their_question_with_the_remarks_on_them(propose):
    above = {n: n - 1 if n % 2 == 0 else None for n in range(1, 61)}
    posts = [(n, above[n], None if above[n] else f"Question {n} on mills?", a_sentence(n)) for n in above]
    made = propose(
        posts=("id INTEGER PRIMARY KEY, parent_id INTEGER, title TEXT, body TEXT", posts),
        comments=many(60, post_id=itself, text="Remark on post {n} of the mill, and thanks for it"),
    )
    found = made.documents("posts")
    assert found.keys() == {str(n) for n in above if not above[n]}
    assert a_sentence(4) in found["3"]
    assert "Remark on post 4" in found["3"]


def test_a_document_has_the_values_of_its_attribute_tables_with_their_captions_and_its_title_from_there(propose):
    """Zotero: what a book is called is a value as all others, in a table that only names it."""
    made = propose(
        items=many(30, "item_id", added="2026-01-{n:02d}"),
        fields=("field_id INTEGER PRIMARY KEY, name TEXT", [(1, "abstract"), (2, "title"), (3, "publisher")]),
        data_values=many(90, "value_id", value=lambda n: a_sentence(n) if n % 3 == 1 else f"River book {n // 3}"),
        item_data=("item_id INTEGER, field_id INTEGER, value_id INTEGER, PRIMARY KEY (item_id, field_id)",
                   [(1 + n // 3, 1 + n % 3, 1 + n) for n in range(90)]),
    )  # fmt: skip
    assert [one.tables[0] for one in made.indexes] == ["items"]
    assert made.coverage.share == 1
    assert made.index("items")["title"] == "value.value"
    assert f"abstract: {a_sentence(19)}\n\ntitle: River book 6" in made.documents("items")["7"]


@pytest.mark.parametrize("key", ["INTEGER", "TEXT"])
def test_a_document_has_no_attribute_that_is_hidden_or_a_secret(propose, key):
    called = ["abstract", "title", "Root password", "publisher"]
    made = propose(
        items=many(30, "item_id", added="2026-01-{n:02d}"),
        fields=(f"field_id {key} PRIMARY KEY, name TEXT", [(n + 1, called[n]) for n in range(4)]),
        item_data=(f"item_id INTEGER, field_id {key}, value TEXT, is_private INTEGER, PRIMARY KEY (item_id, field_id)",
                   [(1 + n // 4, 1 + n % 4, a_sentence(n), int(n // 4 == 6)) for n in range(120)]),
    )  # fmt: skip
    found, title = made.documents("items"), made.index("items")["joins"]["item_data"]
    assert (found["7"], "is_private" in title["where"]) == ("", True)
    assert found["8"] == "\n\n".join(f"{called[n]}: {a_sentence(28 + n)}" for n in (0, 1, 3))


def test_a_title_is_that_of_a_row_for_each_row_and_a_reply_is_found_by_its_thread(propose):
    """osTicket: the subject is in a table of its own, and `pid` names the entry above by numbers that threads have."""
    made = propose(
        ticket=many(30, "ticket_id", created="2026-01-{n:02d}"),
        ticket_cdata=many(30, "ticket_id", subject="Wheel {n} is loud"),
        thread=many(30, object_id=itself, object_type="T"),
        thread_entry=many(
            60, pid=lambda n: 31 - n // 2 if n % 2 == 0 else 0, thread_id=lambda n: (n + 1) // 2, body=a_sentence
        ),
    )
    assert made.index("ticket")["title"] == "ticket_cdata.subject"
    assert made.documents("ticket")["9"] == f"{a_sentence(17)}\n\n{a_sentence(18)}"


NOISE = {
    "letters": ("holds templates, which programs fill in", many(
        30, subject="Your ticket %{{ticket.number}}", body=lambda n: f"Dear %{{ticket.name}}, {a_sentence(n + 700)}")),
    "notice": ("holds templates, which programs fill in", many(
        30, title="Notice {n}", summary="When a wheel stops", body=lambda n: f"Dear {{member.name}}, {a_sentence(n)}")),
    "route": ("is for programs, by its values", many(
        30, title="Route of it {n}", callback=lambda n: f"page_{n}_view",
        arguments=lambda n: f'a:1:{{i:0;s:4:"{n:04d}";}}')),
    "menu_of_it": ("is for programs, by its values", many(
        30, label="app.menu.button_{n}", tip="app.menu.tip_{n}", parent="{n}")),
    "carrier": ("has names alone", many(
        30, name=lambda n: a_sentence(n)[:20], kind_code="c{n}", made="2026-01-01", kinds={"made": "TIMESTAMP"})),
    "nature": ("has names alone", many(6, explanation=lambda n: f"{a_sentence(n)[:22]} {n}")),
    "footer": ("repeats a few texts, as logs do", many(40, message=lambda n: a_sentence(n % 3 + 900))),
    "form_cache": ("is written by programs, which repeat themselves", many(
        300, expires="{n}", data=lambda n: a_sentence(n + 2000))),
    "fault": ("is written by programs, which repeat themselves", many(
        30, name=lambda n: f"The mill stands still {n % 9}", at=lambda n: 1_700_000_000 + 3600 * n, door="10.0.0.{n}",
        trace=lambda n: "".join(f"#{k} /{a_sentence(99 * n + k)[:9]}.php({n}): turn()\n" for k in range(20)))),
    "wording": ("is for programs, by its values", (
        "word TEXT, locale TEXT, said TEXT, PRIMARY KEY (word, locale)",
        [(f"Turn wheel {n}", code, f"Das Rad {n} drehen") for n in range(1, 20) for code in ("de", "en")])),
    "journal_of_it": ("is written by programs, which repeat themselves", many(
        60, said="Miller no. {n} came by the gate and went", at=lambda n: 1_700_000_000 + 3600 * n, door="10.0.0.{n}")),
    "parcel": ("is for programs, by its values", many(
        30, key="MILL_{n}", said=lambda n: f'a:1:{{s:5:"title";s:12:"Wheel of {n}";}}', object_kind="wheel_of_mill")),
    "asset": ("is named in the documents of pages", many(60, title="Mill and weir {n}")),
}  # fmt: skip
EXPLAINED = {
    "hook": many(30, name="displayPart{n}", description="This shows the part {n} of a page"),
    "wheel_type": many(6, name="Type {n}", description=lambda n: a_sentence(n + 600)),
    "field": many(6, name="Field {n}", form_id=cycle(2), description=lambda n: a_sentence(n + 700)),
    "currency": many(60, name="Coin {n}", sign="c{n}"),
}  # fmt: skip


@pytest.mark.parametrize("written", [False, True])
def test_what_came_with_the_application_and_explains_it_is_no_document(propose, written):
    """PrestaShop's hooks, kinds, and Omeka's fields; but what somebody wrote is one."""
    day = {"created": "2026-01-{n:02d}"} if written else {"created": "2026-01-01"}
    tables = {name: (f"{columns}, made TEXT", [(*row, day["created"].format(n=n)) for n, row in enumerate(rows, 1)])
              for name, (columns, rows) in EXPLAINED.items()}  # fmt: skip
    made = propose(
        wheel=many(60, title="Wheel {n}", wheel_type_id=cycle(6), body=a_sentence),
        value=many(120, record_type="wheel", record_id=cycle(60), field_id=cycle(6), text=lambda n: f"Stone {n}"),
        **tables,
    )
    explained = {name for name, why in made.left_out.items() if why == "explains what programs or forms offer"}
    assert explained == (set() if written else EXPLAINED.keys())
    assert made.index("wheel")["title"] == "title"


def test_what_rows_prove_to_be_for_programs_is_no_document(propose):
    made = propose(
        pages=many(60, title="Mill and weir {n}", asset_id=itself, body=a_sentence),
        entry_of_thread=many(30, body=lambda n: a_sentence(n + 1000)),
        search=many(30, content=lambda n: f"wheel{n} {a_sentence(n + 1000)}"),
        country=many(200, name="Country {n}", iso="C{n}"),
        shops=many(12, name="Shop {n}", country_id=itself, about=lambda n: a_sentence(n + 300)),
        **{name: table for name, (_, table) in NOISE.items()},
    )
    assert {name: made.left_out[name] for name in NOISE} == {name: reason for name, (reason, _) in NOISE.items()}
    assert made.left_out["search"].startswith("holds copies of the texts of ")
    assert {one.tables[0] for one in made.indexes} == {"pages", "shops", "entry_of_thread"}


def test_handles_and_names_of_files_beside_what_people_wrote_make_no_rows_for_programs(propose):
    """Skype's messages, whose writers are `gen.beringer`; and Grocy's products, a few of which have a picture."""
    made = propose(
        messages=many(30, writer="mill.er", partner="bak.er", body=a_sentence),
        products=many(30, name="Flour {n}", about=a_sentence, picture_name=lambda n: f"flour_{n}.jpg" if n < 9 else ""),
    )
    assert {one.tables[0] for one in made.indexes} == {"messages", "products"}


def test_a_translated_product_is_called_by_its_name_and_has_its_maker(propose):
    """OpenCart: the product itself has a model number alone."""
    made = propose(
        maker=many(5, "maker_id", name="Mill {n}"),
        product=many(30, "product_id", model="Wheel {n}", maker_id=cycle(5)),
        product_description=(
            "product_id INTEGER, language_id INTEGER, name, description, PRIMARY KEY (product_id, language_id)",
            [(n, 1, f"River stone {n}", a_sentence(n)) for n in range(1, 31)],
        ),
        language=many(1, "language_id", name="English"),
    )
    assert [(one.tables[0], one.settings["title"]) for one in made.indexes] == [("product_description", "name")]
    assert {"product.model", "maker.name"} <= {*made.index("product_description")["text"]}


def test_of_many_tables_those_to_which_many_refer_come_before_what_the_application_brought(propose):
    said = {f"rule{n:02}": many(60, name="Rule {n}", description=TEXT) for n in range(12)}
    made = propose(
        project=many(12, title="Project {n}", text=TEXT, written="2026-01-{n:02d}"),
        **{f"work{n}": many(12, project_id=itself, amount=itself) for n in range(3)},
        **said,
    )
    assert "project" in [one.tables[0] for one in made.indexes]
    assert len(made.indexes) == 10
    waiting = [table for table, why in made.left_out.items() if why == "comes after the first 10 indexes"]
    assert len(waiting) == 3


def test_where_next_to_nothing_is_prose_things_with_names_are_documents_that_rank_behind(propose):
    """In the way of NetBox: a machine is called by a code, its ports are parts of it, kinds are none."""
    sites = {"name": "Branch office {n}", "tenant_id": cycle(5)}
    rack = {"name": "R{n}", "site_id": cycle(20), "height": 42}
    machine = {"name": "mill-rtr{n}", "rack_id": cycle(40), "machine_type_id": cycle(4)}
    ports = many(600, name=lambda n: f"Port no. {n % 30}", machine_id=lambda n: (n - 1) // 30 + 1)
    made = propose(
        tenants=many(5, name="Millers of town {n}"),
        sites=many(20, **sites), racks=many(40, **rack), machines=many(60, **machine), ports=ports,
        machine_types=many(4, name="Router of kind {n}"),
        millers=many(5, first_name="Agnes {n}", last_name="Miller {n}"), shifts=many(9, miller_id=cycle(5)),
    )  # fmt: skip
    assert {one.tables[0] for one in made.indexes} == {"sites", "racks", "machines"}
    assert "Port no. 3" in made.documents("machines")["7"]
    assert all(one.score < 0 for one in made.indexes)


def test_names_alone_are_documents_if_there_is_nothing_else_to_search(propose):
    log = many(40, message=lambda n: a_sentence(n % 3 + 900))
    made = propose(podcast=many(14, title="Podcast {n} of the mill"), follower=many(9, podcast_id=itself), job_log=log)
    assert [one.tables[0] for one in made.indexes] == ["podcast"]


def test_what_a_few_rows_name_is_no_text_of_theirs_and_stays_an_index(propose):
    """In the way of Kobo: `content` holds the books, and two of them are on a shelf."""
    shelf = "ShelfName TEXT, ContentId TEXT, PRIMARY KEY (ShelfName, ContentId)"
    books = many(40, ISBN="97831000{n}", Title="Book {n} of the mill", Description=TEXT)
    columns, rows = books[0].replace('"id" INTEGER', '"ContentID" TEXT'), [(f"b{n}", *row) for n, *row in books[1]]
    made = propose(content=(columns, rows), ShelfContent=(shelf, [("Reading", "b3"), ("Reading", "b5")]))
    assert made.shown("content") == {f'"b{n}"' for n in range(1, 41)}


STAFF = many(9, name="Agnes Miller the {n}th", email="agnes{n}@mill.example", post="Miller of the wheel {n}")
ORDERS = many(30, number="SO{n}-7", customer_id=cycle(30), city="Town {n}", written="2026-01-02 10:{n:02d}")
COURSES = many(40, name="Course {n}", short="Milling {n}", year_id=cycle(4), department_id=cycle(6))
LABELS = {
    "country": many(40, name="Country {n}", iso="C{n}", dial="+{n}"),
    "size": many(40, name="Size {n}", width=itself, made="2026-01-01"),
}


def test_things_of_which_people_keep_a_list_are_searched_though_they_have_names_alone(propose):
    """Staff with an address, orders with a number that were written one by one, and courses of a year."""
    made = propose(
        customer=many(30, name="Mill {n}", about=TEXT, miller_id=cycle(9), country_id=cycle(40), size_id=cycle(40)),
        miller=STAFF, orders=ORDERS, course=COURSES, lessons=many(40, course_id=itself, hour=itself),
        year=many(4, name="Year {n}"), department=many(6, name="Department {n}"), **LABELS,
    )  # fmt: skip
    assert {one.tables[0] for one in made.indexes} == {"customer", "miller", "orders", "course"}
    assert {made.left_out[name] for name in LABELS} == {"is named in the documents of customer"}
    assert "post" in made.index("miller")["text"]


def test_more_than_ten_indexes_are_taken_if_their_rows_have_long_texts_or_are_things(propose):
    said = {f"rule{n:02}": many(60, name="Rule {n}", description=TEXT) for n in range(12)}
    long = many(3, name="Law {n}", text=f"{TEXT}, {TEXT}")
    made = propose(
        **said, law=long, staff=many(3, name="Agnes the {n}th", phone="555-01{n}", about="Miller of wheel {n}")
    )
    assert {"law", "staff"} < {one.tables[0] for one in made.indexes}
    assert sum(why.startswith("comes after the first 10") for why in made.left_out.values()) == 2


def test_a_text_that_some_rows_have_twice_is_shown_for_the_others(propose):
    """Bolt: `lead` is the beginning of a few pages over again, and the text of the others."""
    made = propose(page=many(
        30, title="Page {n}", body=a_sentence, copy=a_sentence,
        teaser=lambda n: a_sentence(n) if n < 4 else None))  # fmt: skip
    assert made.index("page")["text"] == ["body"]
    made = propose(note=many(
        30, title="Note {n}", lead=lambda n: a_sentence(n) if n < 14 else None,
        story=lambda n: a_sentence(n) if n < 4 or n > 13 else None))  # fmt: skip
    assert made.index("note")["text"] == ["lead", "story"]


@pytest.mark.parametrize("column", ["recipe_data", "content", "query", "filter"])
def test_sentences_are_text_whatever_their_column_is_called(propose, column):
    """Objects that an application keeps, and places on the web between texts."""
    said = {
        "recipe_data": lambda n: f'{{"name": "Flour {n}", "steps": "{a_sentence(n)} {a_sentence(n + 50)}"}}',
        "content": lambda n: f"{a_sentence(n)} {a_sentence(n + 50)}" if n % 5 == 0 else f"https://mill.example/{n}",
    }
    made = propose(recipes=many(40, name="Bread {n}", **{column: said.get(column, a_sentence)}))
    assert made.index("recipes")["text"] == [column]


def test_fields_of_a_thing_are_its_text_though_their_tables_are_mostly_for_programs(propose):
    """Drupal's tables of fields have more columns for programs, and CKAN's extras names with values, as settings."""
    key = "entity_type TEXT, bundle TEXT, format TEXT, node_id INT, delta INT, said TEXT, PRIMARY KEY (node_id, delta)"
    extras = ("notes", "spatial", "coverage")
    made = propose(
        node=many(30, title="Mill {n}", body=a_sentence),
        node_field_said=(key, [("the_node", "node_page", "full_html", n, 0, a_sentence(n + 99)) for n in range(1, 31)]),
        node_extra=many(90, node_id=lambda n: (n - 1) // 3 + 1, key=lambda n: extras[n % 3],
                        value=lambda n: a_sentence(n + 200)),
    )  # fmt: skip
    assert {*made.parts("node")} == {"node_field_said", "node_extra"}


def test_talks_are_found_though_programs_have_sessions_and_mails_that_were_sent_are_not(propose):
    made = propose(
        sessions=many(12, title="Talk {n} of the mill", description=TEXT),
        email_log=many(12, subject="A new password for {n}", email_body=f"{TEXT} {{n}}"),
    )
    assert [one.name for one in made.indexes] == ["sessions"]
    assert made.left_out["email_log"] == "is for programs, by its name"


def test_values_belong_to_the_thing_that_their_table_is_called_after_whatever_type_they_have(propose):
    """In the way of Magento, whose tables have no foreign keys: types name the program that reads attributes."""
    of_type = {"entity_type_id": lambda _: 4}
    made = propose(
        eav_entity_type=("entity_type_id INTEGER PRIMARY KEY, model TEXT", [(4, "eav_attribute"), (5, "order")]),
        eav_attribute=many(12, "attribute_id", **of_type, frontend_label="Label {n}"),
        product_entity=many(12, "entity_id", **of_type, name="Wheel {n} of it"),
        product_entity_text=many(
            24, "value_id", **of_type, attribute_id=cycle(2), entity_id=cycle(12), value=f"{PROSE} of {{n}}"
        ),
    )
    assert made.parts("product_entity") == ["product_entity_text"]
