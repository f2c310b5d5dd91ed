"""What becomes of tables: documents, parts and labels, what is left out, and the numbers that are told of it."""

import json

import pytest
import sqlalchemy as sa

from rag_index.errors import SettingsError
from rag_index.first_run.schema.catalog import SAMPLED_ROWS, read_catalog
from rag_index.first_run.schema.reading import propose as proposed
from rag_index.first_run.schema.relations import read_tables, relate
from tests.schema.proposals import PROSE, TEXT, cycle, itself, many, names

HASH = "$2b$12$abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmn"


def becomes(made):
    return {one.name: one.becomes for one in made.tables}


def use(made, table):
    return next(one for one in made.tables if one.name == table)


def tickets(**more):
    """Return tickets with states, queues, owners who log in, and answers."""
    ticket = many(
        40, number=lambda n: f"T-2024-{n:05}", subject="Printer {n} prints blank pages", body=TEXT,
        state_id=cycle(3), queue_id=cycle(2), owner_id=cycle(4), priority=cycle(3),
        made_at=lambda n: f"2024-03-{n % 28 + 1:02} 10:{n}", kinds={"made_at": "DATETIME"},
    )  # fmt: skip
    users = (
        "id INTEGER PRIMARY KEY, name TEXT, email TEXT, password_hash TEXT",
        [
            (n, one, f"u{n}@example.org", HASH)
            for n, one in enumerate(("Ada Brandt", "Jon Weaver", "Mira Sand", "Olu Adeyemi"), 1)
        ],
    )
    answer = many(
        80, ticket_id=lambda n: n % 40 + 1, author_id=cycle(4), text="Answer {n}: have you tried another cable?"
    )
    return {"ticket": ticket, "state": names("new", "open", "closed"), "queue": names("Printing", "Network"),
            "users": users, "answer": answer, **more}  # fmt: skip


def test_documents_parts_and_labels_follow_from_keys_that_nobody_declared(propose):
    made = propose(**tickets())
    assert becomes(made) == {
        "ticket": "document",
        "answer": "part",
        "state": "label",
        "queue": "label",
        "users": "label",
    }
    assert use(made, "answer").of == ("ticket",)
    settings = made.index("ticket")
    assert (settings["title"], settings["parts"][0]["on"]) == ("{number} {subject}", "ticket_id")


def test_people_filter_by_states_queues_owners_levels_and_times_and_by_no_unique_code(propose):
    kinds = propose(**tickets()).index("ticket")["payload_indexes"]
    wanted = {"state.name": "keyword", "queue.name": "keyword", "owner.name": "keyword", "priority": "integer",
              "made_at": "datetime", "answer.author.name": "keyword"}  # fmt: skip
    assert kinds == wanted


def test_secrets_and_what_is_personal_are_left_out_and_named(propose):
    person = many(
        12, full_name="Ada Brandt{n}", email="a{n}@example.org", direct="+49 30 12345{n}", salary=50_000,
        health="The allergy of number {n} against the dust of the mill",
        account_notes="Pays late, and has to be asked {n} times",
        iban="DE89 3704 0044 0532 0130 00", key_of_door=lambda n: f"sk_live_{n:02}Ab3dE5fG7hI9jK1lM", biography=TEXT,
    )  # fmt: skip
    made = propose(person=person)
    out = {one.column for one in use(made, "person").left_out}
    assert out >= {"email", "direct", "health", "account_notes", "iban", "key_of_door"}
    written = json.dumps(made.index("person"))
    assert not [name for name in (*out, "salary") if name in written]
    assert "biography" in propose(other=person, show=["other.email"]).index("other")["text"]
    assert "email" in propose(third=person, show=["third.email"]).index("third")["text"]


def test_texts_that_are_no_plain_columns_are_read_as_what_they_are(propose):
    page = many(
        12, title="Page {n} of the mill", tree=lambda n: json.dumps({"blocks": [{"text": f"{PROSE} {n}"}]}),
        html=f"<p>{PROSE}</p><ul><li>{{n}}</li></ul>", settings=lambda n: json.dumps({"theme": "dark", "width": n}),
        body=lambda n: f"{PROSE} in bytes {n}".encode(), kinds={"body": "BLOB"},
    )  # fmt: skip
    settings = propose(page=page).index("page")
    assert settings["format"] == {"tree": "json", "html": "html", "body": "auto"}
    assert "settings" not in settings["text"]


@pytest.mark.parametrize("key", [lambda n: f"{n:03}e2f9c1b7d4a8650391", lambda n: 7_318_246_551 + n * 7_919])
def test_a_long_random_key_is_proof_without_a_name_and_a_small_number_is_none(propose, key):
    kind = "TEXT" if isinstance(key(1), str) else "INTEGER"
    album = (f"handle {kind} PRIMARY KEY, title TEXT", [(key(n), f"The winter {n} of the mill") for n in range(1, 25)])
    rows = [(key(90 + n), f"{PROSE} {n}", key(n % 24 + 1), n % 24 + 1) for n in range(1, 49)]
    made = propose(album=album, said=(f"handle {kind} PRIMARY KEY, words TEXT, of_what {kind}, much INTEGER", rows))
    assert made.parts("album") == ["said"]
    assert made.index("album")["parts"][0]["on"] in ("of_what", {"of_what": "handle"})


def test_a_random_key_names_a_row_and_not_what_extends_it_too(propose):
    def key(n):
        return f"{n:03}e2f9c1b7d4a8650391"

    rows = [(key(n), key(n - n % 6) if n % 6 else "", f"Suitcase {n} of the mill", n, f"by {n}") for n in range(60)]
    article = ("code TEXT PRIMARY KEY, mother TEXT, title TEXT, price INTEGER, made TEXT", rows)
    longer = ("code TEXT PRIMARY KEY, description TEXT", [(key(n), f"{PROSE} {n}") for n in range(60)])
    said = ("no INTEGER PRIMARY KEY, of_what TEXT, words TEXT", [(n, key(n % 60), f"{PROSE}! {n}") for n in range(90)])
    made = propose(a_longer=longer, article=article, said=said)
    assert [one.table for one in made.indexes] == ["article"]
    assert made.parts("article").count("said") == 1
    with read_catalog(propose.url) as catalog:
        tables = read_tables(catalog)
        relate(catalog, tables)
    (named,) = [one.parent.name for table in tables if table.name == "said" for one in table.parents]
    assert named == "article"


def test_a_type_beside_a_number_says_of_which_table_the_row_is(propose):
    rows = [(n, ("Ticket", "Machine")[n % 2], n % 12 + 1, f"{PROSE} {n}") for n in range(1, 49)]
    made = propose(
        ticket=many(12, subject="Ticket {n} of the mill", body=TEXT),
        machine=many(12, name="Machine {n} of it", use=TEXT),
        remark=("id INTEGER PRIMARY KEY, about_type TEXT, about_id INTEGER, text TEXT", rows),
    )  # fmt: skip
    assert [made.index(one)["parts"][0]["where"] for one in ("ticket", "machine")] == [
        "about_type = 'Ticket'", "about_type = 'Machine'"
    ]  # fmt: skip


def test_names_and_values_in_other_tables_are_lines_with_captions(propose):
    fields = names("title", "abstract", "place")
    values = [(n, f"The winter {n} of the mill, as told" if n % 3 == 1 else f"{PROSE} {n}") for n in range(1, 37)]
    data = [((n - 1) // 3 + 1, (n - 1) % 3 + 1, n) for n in range(1, 37)]
    made = propose(
        item=many(12, added=lambda n: f"2024-03-{n:02} 10:00:00", kinds={"added": "DATETIME"}), field=fields,
        value=("id INTEGER PRIMARY KEY, value TEXT", values),
        item_data=("item_id INTEGER, field_id INTEGER, value_id INTEGER, PRIMARY KEY (item_id, field_id)", data),
    )  # fmt: skip
    assert made.index("item")["parts"][0]["text"] == "{field.name}: {value.value}"


@pytest.mark.parametrize(
    ("table", "rows", "why"),
    [
        ("cache", many(30, name="Page {n}", body=TEXT), "is for programs"),
        ("app_values", many(30, name=lambda n: f"STORE_NAME_{n}", value=TEXT), "has names with values"),
        ("notices", many(30, subject="Hello {n}", text=f"Dear {{{{user.name}}}}, {PROSE}"), "templates"),
        ("person", ("id INTEGER PRIMARY KEY, name TEXT, email TEXT, password TEXT",
                    [(n, f"Ada B {n}", f"a{n}@b.org", HASH) for n in range(9)]), "has accounts"),
        ("country", many(30, name="The country {n} of it", code=lambda n: f"{n:03}"), "has names alone"),
        ("article_revision", many(30, title="The bridge {n}", body=TEXT), "what is in other tables"),
        ("empty", ("id INTEGER PRIMARY KEY, text TEXT", []), "is empty"),
    ],
)  # fmt: skip
def test_what_nobody_looks_for_is_left_out_with_its_reason_and_size_and_comes_by_name(propose, table, rows, why):
    article = many(30, title="The bridge {n}", body=TEXT)
    made = propose(**{"article": article, table: rows})
    out = use(made, table)
    assert (out.becomes, why in out.why) == ("out", True)
    assert out.chars or why == "is empty"
    if why != "is empty":
        with read_catalog(made.url) as catalog:
            wanted = type(made)(*[getattr(proposed(catalog, _included(table)), one) for one in ("tables", "indexes")])
        assert use(wanted, table).becomes == "document"


def _included(table):
    from rag_index.first_run.schema.proposed import Choices

    return Choices(include=(table,))


def test_rows_that_repeat_and_were_written_one_by_one_are_found(propose):
    booking = many(60, memo=lambda n: f"{PROSE} {n % 9}", made_at=lambda n: f"2024-03-{n % 27 + 1:02} 10:{n}:00",
                   kinds={"made_at": "DATETIME"})  # fmt: skip
    assert (
        becomes(propose(booking=booking, article=many(30, title="The bridge {n}", body=TEXT)))["booking"] == "document"
    )


def test_the_share_counts_all_text_and_what_hidden_rows_have_is_not_searched(propose):
    columns, rows = many(40, title="The bridge {n}", body=TEXT)
    made = propose(article=(f"{columns}, is_private INTEGER", [(*row, row[0] % 4 == 0) for row in rows]))
    chars = sum(len(row[1]) + len(row[2]) for row in rows)
    assert (made.chars, made.exact) == (chars, True)
    assert made.searched == pytest.approx(0.75 * chars, rel=0.02)


def test_a_comment_with_a_subject_of_its_row_is_a_part_of_it(propose):
    made = propose(story=many(20, title="The bridge {n}", body=TEXT),
                   comment=many(40, story_id=cycle(20), subject="Re: something {n}", text=TEXT))  # fmt: skip
    assert made.parts("story") == ["comment"]


def test_choices_name_tables_and_columns_that_exist(propose):
    with pytest.raises(SettingsError, match="there is no table articel"):
        propose(article=many(12, title="The bridge {n}", body=TEXT), include=["articel"])
    with pytest.raises(SettingsError, match=r"there is no column text.body, as TABLE\.COLUMN"):
        propose(text=many(12, title="The bridge {n}", told=TEXT), hide=["text.body"])


def test_a_table_that_cannot_be_read_is_left_out_with_the_reason(propose):
    made = propose(article=many(12, title="The bridge {n}", body=TEXT))
    engine = sa.create_engine(made.url)
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA writable_schema = ON")
        sql = "CREATE VIRTUAL TABLE odd USING vec0(embedding float[4])"
        connection.exec_driver_sql(f"INSERT INTO sqlite_master VALUES ('table', 'odd', 'odd', 0, '{sql}')")
    engine.dispose()
    with read_catalog(made.url) as catalog:
        found = proposed(catalog)
    assert becomes(found) == {"article": "document", "odd": "out"}
    assert "no such module: vec0" in use(found, "odd").why


def test_a_text_that_is_no_utf_8_ends_nothing(propose):
    made = propose(article=many(12, title="The bridge {n}", body=TEXT))
    engine = sa.create_engine(made.url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE article SET body = CAST(x'63616665e9' || body AS TEXT)")
    engine.dispose()
    with read_catalog(made.url) as catalog:
        assert becomes(proposed(catalog)) == {"article": "document"}


def test_a_column_of_texts_and_numbers_is_a_key_at_most_and_no_text(propose):
    rows = [(n if n % 3 else f"{n}A", f"The bridge {n}", f"{PROSE} {n}", n if n % 2 else "high") for n in range(1, 31)]
    made = propose(article=("section INTEGER, title TEXT, body TEXT, height INTEGER", rows))
    assert made.index("article")["key"] == "section"
    assert len(made.shown("article")) == 30


def test_progress_names_each_table_and_a_large_table_is_not_scanned(propose):
    columns, rows = many(SAMPLED_ROWS * 80, title="The bridge {n}", body=PROSE)
    made = propose(article=(columns, rows), note=many(12, title="Note {n} of us", body=TEXT, other=itself))
    seen, asked = [], []
    with read_catalog(made.url, lambda *told: seen.append(told)) as catalog:
        sa.event.listen(catalog.connection, "before_cursor_execute", lambda *told: asked.append(told[2]))
        article = next(one for one in proposed(catalog).tables if one.name == "article")
    assert seen == [(0, 2, "article"), (1, 2, "note")]
    assert (article.rows, article.exact) == (SAMPLED_ROWS * 80, False)
    assert article.chars == pytest.approx(sum(len(row[1]) + len(row[2]) for row in rows), rel=0.1)
    assert all("LIMIT" in sql for sql in asked if "article" in sql)


@pytest.mark.parametrize(
    "name", ["email_log", "MailQueue", "search_total", "smtp_maillog", "mail_queuedmail", "modlog"]
)
def test_what_a_program_sent_or_searches_in_is_for_programs(propose, name):
    page, others = many(12, title="Page {n} of the mill", body=TEXT), many(12, subject="Password for {n}", body=TEXT)
    line = many(48, mail_id=lambda n: n % 12 + 1, text=TEXT)
    made = propose(page=page, **{name: others, f"{name}_line": (line[0].replace("mail_id", f"{name}_id"), line[1])})
    assert name not in [one.table for one in made.indexes]


def test_a_queue_is_known_by_its_columns_whatever_it_is_called(propose):
    page = many(12, title="Page {n} of the mill", body=TEXT, queue="north")
    made = propose(
        page=page, failed_work=many(12, queue="mail", payload=TEXT, exception="The host {n} is away. " + TEXT)
    )
    assert [one.table for one in made.indexes] == ["page"]


def test_what_hangs_on_parts_of_parts_is_not_lost(propose):
    below = {f"step_{k}": many(24, **{f"{up}_id": lambda n: n % 12 + 1}, text=TEXT)
             for k, up in enumerate(("page", "step_0", "step_1", "step_2"))}  # fmt: skip
    assert "out" not in becomes(propose(page=many(12, title="Page {n} of the mill", body=TEXT), **below)).values()


def test_a_row_says_what_the_row_above_it_is_called(propose):
    card = many(24, title="Card {n} of the mill", body=TEXT, parent_id=lambda n: n // 2)
    assert "Card 3 of the mill" in propose(card=card).documents("card")["7"]


def test_what_others_tell_of_is_a_document_though_it_is_linked_and_has_no_name(propose):
    paper = many(24, language=cycle(2), publisher=lambda n: f"{PROSE} {n}" if n < 4 else None)
    abstract = many(48, paper_id=cycle(24), value=TEXT)
    linked = [(n, n % 6 + 1) for n in range(1, 25)]
    link = ("paper_id INTEGER, person_id INTEGER, PRIMARY KEY (paper_id, person_id)", linked)
    made = propose(paper=paper, abstract=abstract, person=many(6, name="Ada Brandt{n}", body=TEXT), link=link)
    assert "abstract" in made.parts("paper")


def test_what_programs_need_owns_no_parts(propose):
    paragraph = many(48, cache_id=lambda n: n % 40 + 1, page_id=cycle(12), text=TEXT)
    cache, page = many(40, name="Page {n}", body=TEXT), many(12, title="Page {n} of the mill", body=TEXT)
    assert propose(cache=cache, page=page, paragraph=paragraph).parts("page") == ["paragraph"]


def test_a_random_key_names_a_row_though_another_column_is_in_the_key(propose):
    def key(n):
        return f"{n:03}e2f9c1b7d4a8650391"

    rows = [(key(n % 2), key(n), key(n // 2) if n > 1 else "", f"Card {n} of us", TEXT, n == 2) for n in range(1, 25)]
    columns = (
        "space_id TEXT, id TEXT, parent_id TEXT, title TEXT, body TEXT, hidden INTEGER, PRIMARY KEY (space_id, id)"
    )
    made = propose(card=(columns, rows))
    below = {n for n in range(1, 25) if any(n >> k == 2 for k in range(5))}
    assert {*map(json.loads, made.shown("card"))} == {key(n) for n in range(1, 25) if n not in below}


def test_many_short_facts_of_rows_that_say_more_are_no_documents(propose):
    facts = {name: (lambda n, by=by: f"x{n % 97}{by}") for by, name in enumerate(("shell", "level", "ground", "state"))}
    energy = many(600, element_id=lambda n: n % 12 + 1, species="Mn {n}", charge=cycle(90), energy=itself, **facts)
    made = propose(element=many(12, name="Element {n}", description=TEXT), energy=energy)
    assert [one.table for one in made.indexes] == ["element"]


def test_text_that_fills_a_place_is_no_text(propose):
    filled = many(12, title="Page {n} of the mill", body="Lorem ipsum dolor sit amet, consectetur {n}")
    made = propose(draft_page=filled, page=many(12, title="Page {n} of the mill", body=TEXT))
    assert [one.table for one in made.indexes] == ["page"]


def test_a_table_with_nothing_but_personal_text_is_searched_if_a_person_includes_it(propose):
    account = many(4, account="a{n}@example.org")
    assert propose(account=account, page=many(12, title="Page {n}", body=TEXT)).parts("page") == []
    assert propose(other=account, include=["other"]).index("other")["text"] == ["account"]


def test_texts_that_differ_by_a_number_alone_are_no_log(propose):
    ticket = many(
        60, subject="Ticket {n}", severity="low", agent="bob", body="The pump {n} of the mill is broken again"
    )
    assert propose(ticket=ticket).index("ticket")


def test_a_type_beside_a_parent_tells_its_table(propose):
    said = many(40, ptable=lambda n: "page" if n % 2 else "news", pid=lambda n: n % 12 + 1, text=TEXT)
    titled = many(12, title="Page {n} of the mill", teaser=TEXT)
    made = propose(page=titled, news=titled, content=said)
    assert made.parts("page") == made.parts("news") == ["content"]
