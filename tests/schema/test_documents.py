"""What becomes of tables and is left out, and what is read of databases that are not plain."""

import json
import sqlite3
from contextlib import closing, nullcontext

import pytest
import sqlalchemy as sa

from rag_index.first_run.schema import scaffold
from rag_index.first_run.schema.catalog import SAMPLED_ROWS, read_catalog
from rag_index.first_run.schema.reading import propose as proposed
from rag_index.first_run.schema.relations import read_tables, relate
from tests.schema.conftest import PROSE, TEXT, cycle, documents_of, itself, many, names

HASH = "$2b$12$abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmn"
LANGUAGES = ("en", "de")
TYPES = {
    "postgres": [
        ("state mood_of_us", "NULL", "'sad'"),
        ("acl json", "'{}'", """'{"secret": true}'"""),
    ]
}
TYPES["mariadb"] = [("state enum('glad', 'sad')", "'glad'", "'sad'"), ("mark bit", "b'0'", "b'1'")]
TYPES["postgres"] += [("published_at date", "now()", "NULL")]
TYPES["mariadb"] += [("acl json", "'{}'", """'{"secret": true}'""")]


def becomes(made):
    return {one.name: one.becomes for one in made.tables}


def use(made, table):
    return next(one for one in made.tables if one.name == table)


def tickets():
    """Return tickets with states, queues, owners who log in, and answers."""
    ticket = many(
        40,
        number=lambda n: f"T-2024-{n:05}",
        subject="Printer {n} prints blank pages",
        body=TEXT,
        state_id=cycle(3),
        queue_id=cycle(2),
        owner_id=cycle(4),
        priority=cycle(3),
        made_at=lambda n: f"2024-03-{n % 28 + 1:02} 10:{n}",
        kinds={"made_at": "DATETIME"},
    )
    people = ("Ada Brandt", "Jon Weaver", "Mira Sand", "Olu Adeyemi")
    users = many(4, name=lambda n: people[n - 1], email="u{n}@example.org", password_hash=HASH)
    answer = many(
        80,
        ticket_id=cycle(40),
        author_id=cycle(4),
        text="Answer {n}: have you tried another cable?",
    )
    labels = {"state": names("new", "open", "closed"), "queue": names("Printing", "Network")}
    return {"ticket": ticket, "users": users, "answer": answer, **labels}


def test_documents_parts_and_labels_follow_from_keys_that_nobody_declared(propose):
    """People filter by states, queues, owners, levels and times, and by no unique code."""
    made = propose(**tickets())
    labels = dict.fromkeys(("state", "queue", "users"), "label")
    assert becomes(made) == {"ticket": "document", "answer": "part", **labels}
    assert use(made, "answer").of == ("ticket",)
    settings = made.index("ticket")
    assert (settings["title"], settings["parts"][0]["on"]) == ("{number} {subject}", "ticket_id")
    names = dict.fromkeys(
        ("state.name", "queue.name", "owner.name", "answer.author.name"), "keyword"
    )
    assert settings["payload_indexes"] == {"priority": "integer", "made_at": "datetime", **names}


def test_secrets_and_what_is_personal_are_left_out_and_named(propose):
    person = many(
        12,
        full_name="Ada Brandt{n}",
        email="a{n}@example.org",
        direct="+49 30 12345{n}",
        salary=50_000,
        staff_note="Pays late, and has to be asked {n} times",
        iban="DE89 3704 0044 0532 0130 00",
        key_of_door=lambda n: f"sk_live_{n:02}Ab3dE5fG7hI9jK1lM",
        biography=TEXT,
    )
    made = propose(person=person)
    out = {one.name for one in use(made, "person").columns if one.use == "leave out"}
    assert out >= {"email", "direct", "staff_note", "iban", "key_of_door"}
    assert not [name for name in (*out, "salary") if name in json.dumps(made.index("person"))]
    assert (
        "biography" in propose(other=person, answers={"other.email": "text"}).index("other")["text"]
    )
    assert "email" in propose(third=person, answers={"third.email": "text"}).index("third")["text"]


def test_texts_that_are_no_plain_columns_are_read_as_what_they_are(propose):
    page = many(
        12,
        title="Page {n} of the mill",
        tree=lambda n: json.dumps({"blocks": [{"text": f"{PROSE} {n}"}]}),
        html=f"<p>{PROSE}</p><ul><li>{{n}}</li></ul>",
        settings=lambda n: json.dumps({"theme": "dark", "width": n}),
        body=lambda n: f"{PROSE} in bytes {n}".encode(),
        kinds={"body": "BLOB"},
    )
    settings = propose(page=page).index("page")
    assert settings["format"] == {"tree": "json", "html": "html", "body": "auto"}
    assert "settings" not in settings["text"]


@pytest.mark.parametrize(
    "key", [lambda n: f"{n:03}e2f9c1b7d4a8650391", lambda n: 7_318_246_551 + n * 7_919]
)
def test_a_long_random_key_is_proof_without_a_name_and_a_small_number_is_none(propose, key):
    kind = "TEXT" if isinstance(key(1), str) else "INTEGER"
    album = (
        f"handle {kind} PRIMARY KEY, title TEXT",
        [(key(n), f"The winter {n} of the mill") for n in range(1, 25)],
    )
    rows = [(key(90 + n), f"{PROSE} {n}", key(n % 24 + 1), n % 24 + 1) for n in range(1, 49)]
    made = propose(
        album=album,
        said=(f"handle {kind} PRIMARY KEY, words TEXT, of_what {kind}, much INTEGER", rows),
    )
    assert made.parts("album") == ["said"]
    assert made.index("album")["parts"][0]["on"] in ("of_what", {"of_what": "handle"})


def key(n):
    return f"{n:03}e2f9c1b7d4a8650391"


def test_a_random_key_names_a_row_and_not_what_extends_it_too(propose):
    rows = [
        (key(n), key(n - n % 6) if n % 6 else "", f"Suitcase {n} of the mill", n, f"by {n}")
        for n in range(60)
    ]
    article = ("code TEXT PRIMARY KEY, mother TEXT, title TEXT, price INTEGER, made TEXT", rows)
    longer = (
        "code TEXT PRIMARY KEY, description TEXT",
        [(key(n), f"{PROSE} {n}") for n in range(60)],
    )
    said = (
        "no INTEGER PRIMARY KEY, of_what TEXT, words TEXT",
        [(n, key(n % 60), f"{PROSE}! {n}") for n in range(90)],
    )
    made = propose(a_longer=longer, article=article, said=said)
    assert ([one.table for one in made.indexes], made.parts("article").count("said")) == (
        ["article"],
        1,
    )
    with read_catalog(propose.url) as catalog:
        tables = read_tables(catalog)
        relate(catalog, tables)
    (named,) = [
        one.parent.name for table in tables if table.name == "said" for one in table.parents
    ]
    assert named == "article"


def test_a_type_beside_a_number_says_of_which_table_the_row_is(propose):
    rows = [(n, ("Ticket", "Machine")[n % 2], n % 12 + 1, f"{PROSE} {n}") for n in range(1, 49)]
    made = propose(
        ticket=many(12, subject="Ticket {n} of the mill", body=TEXT),
        machine=many(12, name="Machine {n} of it", use=TEXT),
        remark=("id INTEGER PRIMARY KEY, about_type TEXT, about_id INTEGER, text TEXT", rows),
    )
    for name in ("ticket", "machine"):
        assert made.index(name)["parts"][0]["where"] == f"about_type = '{name.capitalize()}'"
    said = many(40, ptable=lambda n: "page" if n % 2 else "news", pid=cycle(12), text=TEXT)
    titled = many(12, title="Page {n} of the mill", teaser=TEXT)
    made = propose(page=titled, news=titled, content=said)
    assert made.parts("page") == made.parts("news") == ["content"]


def test_names_and_values_in_other_tables_are_lines_with_captions(propose):
    fields = names("title", "abstract", "place")
    values = [
        (n, f"The winter {n} of the mill, as told" if n % 3 == 1 else f"{PROSE} {n}")
        for n in range(1, 37)
    ]
    data = [((n - 1) // 3 + 1, (n - 1) % 3 + 1, n) for n in range(1, 37)]
    made = propose(
        item=many(12, added=lambda n: f"2024-03-{n:02} 10:00:00", kinds={"added": "DATETIME"}),
        field=fields,
        value=("id INTEGER PRIMARY KEY, value TEXT", values),
        item_data=(
            "item_id INTEGER, field_id INTEGER, value_id INTEGER, PRIMARY KEY (item_id, field_id)",
            data,
        ),
    )
    assert made.index("item")["parts"][0]["text"] == "{field.name}: {value.value}"


def test_what_nobody_looks_for_is_left_out_with_its_reason_and_size_and_comes_by_name(propose):
    for table, rows, why in (
        ("cache", many(30, name="Page {n}", body=TEXT), "is for programs"),
        (
            "app_values",
            many(30, name=lambda n: f"STORE_NAME_{n}", value=TEXT),
            "has names with values",
        ),
        (
            "notices",
            many(30, subject="Hello {n}", text=f"Dear {{{{user.name}}}}, {PROSE}"),
            "templates",
        ),
        (
            "person",
            (
                "id INTEGER PRIMARY KEY, name TEXT, email TEXT, password TEXT",
                [(n, f"Ada B {n}", f"a{n}@b.org", HASH) for n in range(9)],
            ),
            "has accounts",
        ),
        (
            "country",
            many(30, name="The country {n} of it", code=lambda n: f"{n:03}"),
            "has names alone",
        ),
        (
            "article_revision",
            many(30, title="The bridge {n}", body=TEXT),
            "what is in other tables",
        ),
        ("empty", ("id INTEGER PRIMARY KEY, text TEXT", []), "is empty"),
    ):
        tables = {"article": many(30, title="The bridge {n}", body=TEXT), table: rows}
        out = use(propose(**tables), table)
        assert (out.becomes, why in out.why) == ("out", True), table
        assert out.chars or why == "is empty", table
        if why != "is empty":
            assert (
                use(propose(**tables, answers={table: "document"}), table).becomes == "document"
            ), table


def test_rows_that_repeat_and_were_written_one_by_one_are_found(propose):
    booking = many(
        60,
        memo=lambda n: f"{PROSE} {n % 9}",
        made_at=lambda n: f"2024-03-{n % 27 + 1:02} 10:{n}:00",
        kinds={"made_at": "DATETIME"},
    )
    made = propose(booking=booking, article=many(30, title="The bridge {n}", body=TEXT))
    assert becomes(made)["booking"] == "document"


def test_the_share_counts_all_text_and_what_hidden_rows_have_is_not_searched(propose):
    columns, rows = many(
        40, title="The bridge {n}", body=TEXT, is_private=lambda n: int(n % 4 == 0)
    )
    made = propose(article=(columns, rows))
    chars = sum(len(row[1]) + len(row[2]) for row in rows)
    assert (made.chars, made.exact) == (chars, True)
    assert made.searched == pytest.approx(0.75 * chars, rel=0.02)


def test_a_table_that_cannot_be_read_is_left_out_with_the_reason_and_a_text_that_is_no_utf_8_ends_nothing(
    propose,
):
    made = propose(article=many(12, title="The bridge {n}", body=TEXT))
    engine = sa.create_engine(made.url)
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA writable_schema = ON")
        sql = "CREATE VIRTUAL TABLE odd USING vec0(embedding float[4])"
        connection.exec_driver_sql(
            f"INSERT INTO sqlite_master VALUES ('table', 'odd', 'odd', 0, '{sql}')"
        )
        connection.exec_driver_sql("UPDATE article SET body = CAST(x'63616665e9' || body AS TEXT)")
    engine.dispose()
    with read_catalog(made.url) as catalog:
        found = proposed(catalog)
    assert becomes(found) == {"article": "document", "odd": "out"}
    assert "no such module: vec0" in use(found, "odd").why


def test_a_column_of_texts_and_numbers_is_a_key_at_most_and_no_text(propose):
    rows = [
        (n if n % 3 else f"{n}A", f"The bridge {n}", f"{PROSE} {n}", n if n % 2 else "high")
        for n in range(1, 31)
    ]
    made = propose(article=("section INTEGER, title TEXT, body TEXT, height INTEGER", rows))
    assert (made.index("article")["key"], len(made.shown("article"))) == ("section", 30)


def test_progress_names_each_table_and_a_large_table_is_not_scanned(propose):
    columns, rows = many(SAMPLED_ROWS * 80, title="The bridge {n}", body=PROSE)
    made = propose(
        article=(columns, rows), note=many(12, title="Note {n} of us", body=TEXT, other=itself)
    )
    seen, asked = [], []
    with read_catalog(made.url, lambda *told: seen.append(told)) as catalog:
        sa.event.listen(
            catalog.connection, "before_cursor_execute", lambda *told: asked.append(told[2])
        )
        article = next(one for one in proposed(catalog).tables if one.name == "article")
    assert (seen, (article.rows, article.exact)) == (
        [(0, 2, "article"), (1, 2, "note")],
        (SAMPLED_ROWS * 80, False),
    )
    assert article.chars == pytest.approx(sum(len(row[1]) + len(row[2]) for row in rows), rel=0.1)
    assert all("LIMIT" in sql for sql in asked if "article" in sql)


@pytest.mark.parametrize(
    "name", "email_log MailQueue search_total smtp_maillog mail_queuedmail modlog".split()
)
def test_what_a_program_sent_or_searches_in_is_for_programs(propose, name):
    page, others = (
        many(12, title="Page {n} of the mill", body=TEXT),
        many(12, subject="Password for {n}", body=TEXT),
    )
    line = many(48, mail_id=lambda n: n % 12 + 1, text=TEXT)
    made = propose(
        page=page,
        **{name: others, f"{name}_line": (line[0].replace("mail_id", f"{name}_id"), line[1])},
    )
    assert name not in [one.table for one in made.indexes]


def test_what_programs_need_owns_no_parts_and_text_that_fills_a_place_is_none(propose):
    made = propose(
        page=many(12, title="Page {n} of the mill", body=TEXT, queue="north"),
        brochure=many(
            12,
            title="Ferry {n}",
            body="Lorem ipsum dolor sit amet, consectetur adipiscing elit sed {n}",
        ),
        cache=many(40, name="Page {n}", body=TEXT),
        paragraph=many(48, cache_id=lambda n: n % 40 + 1, page_id=cycle(12), text=TEXT),
    )
    assert [one.table for one in made.indexes] == ["page"]
    assert made.parts("page") == ["paragraph"], "what programs need owns no parts"


def test_what_hangs_on_parts_of_parts_is_not_lost_and_a_comment_with_a_subject_of_its_row_is_a_part_of_it(
    propose,
):
    below = {}
    for k, up in enumerate(("page", "step_0", "step_1", "step_2")):
        below[f"step_{k}"] = many(24, **{f"{up}_id": cycle(12)}, text=TEXT)
    below["comment"] = many(40, story_id=cycle(20), subject="Re: something {n}", text=TEXT)
    page, story = (
        many(12, title="Page {n} of the mill", body=TEXT),
        many(20, title="The bridge {n}", body=TEXT),
    )
    made = propose(page=page, story=story, **below)
    assert "out" not in becomes(made).values()
    assert made.parts("story") == ["comment"]


def test_a_row_says_what_the_row_above_it_is_called_and_texts_that_differ_by_a_number_alone_are_no_log(
    propose,
):
    card = many(24, title="Card {n} of the mill", body=TEXT, parent_id=lambda n: n // 2)
    alike = {
        "subject": "Ticket {n}",
        "severity": "low",
        "agent": "bob",
        "body": "The pump {n} of the mill is broken",
    }
    made = propose(card=card, ticket=many(60, **alike))
    assert "Card 3 of the mill" in made.documents("card")["7"]
    assert made.index("ticket")


def test_what_others_tell_of_is_a_document_though_it_is_linked_and_has_no_name(propose):
    paper = many(24, language=cycle(2), publisher=lambda n: f"{PROSE} {n}" if n < 4 else None)
    abstract = many(48, paper_id=cycle(24), value=TEXT)
    key = "paper_id INTEGER, person_id INTEGER, PRIMARY KEY (paper_id, person_id)"
    tables = {
        "person": many(6, name="Ada Brandt{n}", body=TEXT),
        "link": (key, [(n, n % 6 + 1) for n in range(1, 25)]),
    }
    assert "abstract" in propose(paper=paper, abstract=abstract, **tables).parts("paper")


def test_a_random_key_names_a_row_though_another_column_is_in_the_key(propose):
    rows = [
        (key(n % 2), key(n), key(n // 2) if n > 1 else "", f"Card {n} of us", TEXT, n == 2)
        for n in range(1, 25)
    ]
    texts = " ".join(f"{name} TEXT," for name in ("space_id", "id", "parent_id", "title", "body"))
    made = propose(card=(f"{texts} hidden INTEGER, PRIMARY KEY (space_id, id)", rows))
    below = {n for n in range(1, 25) if any(n >> k == 2 for k in range(5))}
    assert {*map(json.loads, made.shown("card"))} == {
        key(n) for n in range(1, 25) if n not in below
    }


def test_many_short_facts_of_rows_that_say_more_are_no_documents(propose):
    facts = {
        name: lambda n, by=by: f"x{n % 97}{by}"
        for by, name in enumerate(("shell", "level", "ground", "state"))
    }
    energy = many(
        600,
        element_id=lambda n: n % 12 + 1,
        species="Mn {n}",
        charge=cycle(90),
        energy=itself,
        **facts,
    )
    made = propose(element=many(12, name="Element {n}", description=TEXT), energy=energy)
    assert [one.table for one in made.indexes] == ["element"]


def test_a_table_with_nothing_but_personal_text_is_searched_if_a_person_includes_it(propose):
    account = many(4, account="a{n}@example.org")
    assert propose(account=account, page=many(12, title="Page {n}", body=TEXT)).parts("page") == []
    assert propose(other=account, answers={"other": "document"}).index("other")["text"] == [
        "account"
    ]


def both(**columns):
    """Return rows in two languages for each of 20 products."""
    return many(
        40, product_id=lambda n: (n - 1) // 2 + 1, lang=lambda n: LANGUAGES[n % 2], **columns
    )


def test_a_title_and_a_text_in_two_tables_of_translations_are_one_document(propose):
    made = propose(
        product=many(20, price=itself),
        product_name=both(name="The fine kettle {n}"),
        product_text=both(body=TEXT),
    )
    assert [one.table for one in made.indexes] == ["product_text"]
    found = documents_of(str(made.url), made.index("product_text"))
    shown = zip(found.keys, found.payloads, found.layouts, strict=True)
    assert all(f"The fine kettle {key}" in f"{payload}{layout}" for key, payload, layout in shown)


def test_a_visit_of_a_category_with_a_person_and_a_reason_is_a_document_and_two_names_are_one(
    propose,
):
    def reason(n):
        where, when = (
            "knee hip arm foot neck back hand".split()[n % 7],
            "walking sitting lying".split()[n % 3],
        )
        return (
            f"The {where} hurts when {when}, since the fall on the ice {n * 7} days ago, and"
            " nothing has helped yet"
        )

    at = {
        "visited_at": lambda n: f"2024-03-{n % 28 + 1:02} 10:{n:02}:00",
        "kinds": {"visited_at": "DATETIME"},
    }
    made = propose(
        patient=many(30, firstname="Ada{n}", lastname="Brandt{n}", phone="+49 30 1234{n}"),
        visit_type=many(4, name="Kind {n}", description=TEXT),
        visit=many(60, visit_type_id=cycle(4), patient_id=cycle(30), reason=reason, **at),
        trainer=many(30, firstname="Ada{n}", lastname="Brandt{n}", bio=TEXT),
    )
    assert {one.name: one.becomes for one in made.tables}["visit"] == "document"
    assert made.index("trainer")["title"] == "{firstname} {lastname}"


def test_a_collation_of_the_application_is_left_out_of_comparisons_and_a_key_with_one_is_named(
    tmp_path,
):
    file = tmp_path / "own.db"
    with closing(sqlite3.connect(file)) as db:
        db.create_collation("uca", lambda one, other: (one > other) - (one < other))
        own = "teaser TEXT COLLATE uca, state TEXT COLLATE uca"
        db.execute(f"CREATE TABLE note (id INTEGER PRIMARY KEY, title TEXT, body TEXT, {own})")
        db.execute("CREATE TABLE thing (code TEXT COLLATE uca PRIMARY KEY, body TEXT)")
        states = ["public" if n % 7 else "draft" for n in range(1, 401)]
        rows = [
            (n, f"Page {n} of us", f"{PROSE} {n}", f"{PROSE}! {n}", one)
            for n, one in enumerate(states, 1)
        ]
        db.executemany("INSERT INTO note VALUES (?, ?, ?, ?, ?)", rows)
        db.executemany("INSERT INTO thing VALUES (?, ?)", [(f"c{row[0]}", row[2]) for row in rows])
        db.commit()
    made = scaffold(f"sqlite:///{file}", tmp_path)
    (index,) = made.proposal.indexes
    assert len(documents_of(f"sqlite:///{file}", index.settings)) == 400 - 400 // 7
    assert [
        one.name
        for table in made.proposal.tables
        for one in table.columns
        if one.use == "leave out" and table.index
    ] == ["teaser", "state"]
    assert (
        "its key code needs the application"
        in {one.name: one.why for one in made.proposal.tables}["thing"]
    )


def test_what_a_user_may_not_read_is_said_with_the_right_to_ask_for(postgres, tmp_path):
    with postgres.database() as name:
        engine = sa.create_engine(postgres.url(name))
        with engine.begin() as connection:
            for table in ("note", "hush"):
                columns = "id int PRIMARY KEY, title text, body text, pay text"
                connection.exec_driver_sql(f"CREATE TABLE {table} ({columns})")
                filled = (
                    f"INSERT INTO {table} SELECT n, 'Page ' || n || ' of us', '{PROSE} ' || n, 'x'"
                    " FROM"
                )
                connection.exec_driver_sql(f"{filled} generate_series(1, 60) AS n")
            connection.exec_driver_sql("CREATE ROLE partly LOGIN PASSWORD 'pw'")
            connection.exec_driver_sql("GRANT SELECT (id, title, body) ON note TO partly")
        url = (
            postgres.url(name)
            .set(username="partly", password="pw")
            .render_as_string(hide_password=False)
        )
        made = scaffold(url, tmp_path)
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP OWNED BY partly")
            connection.exec_driver_sql("DROP ROLE partly")
        engine.dispose()
    assert [one.settings["text"] for one in made.proposal.indexes] == [["body"]]
    assert "GRANT SELECT (pay) ON note TO partly" in made.text
    assert {one.name: one.why for one in made.proposal.tables}["hush"].endswith(
        "GRANT SELECT ON hush TO partly"
    )
    assert "1 table cannot be read, and is not counted" in made.text


@pytest.mark.parametrize("server", TYPES)
def test_exceptions_are_left_out_whatever_the_type_of_a_server(request, server, tmp_path):
    running = request.getfixturevalue(server)
    with running.database() if server == "postgres" else nullcontext() as name:
        url = running.url(name) if server == "postgres" else running.url
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            if server == "postgres":
                connection.exec_driver_sql("CREATE TYPE mood_of_us AS ENUM ('glad', 'sad')")
            columns = ", ".join(column for column, _, _ in TYPES[server])
            connection.exec_driver_sql(
                f"CREATE TABLE held (id int PRIMARY KEY, title text, body text, {columns})"
            )
            for n in range(1, 61):
                held = (
                    other if n == 7 + at else usual
                    for at, (_, usual, other) in enumerate(TYPES[server])
                )
                values = ", ".join(held)
                connection.exec_driver_sql(
                    f"INSERT INTO held VALUES ({n}, 'Page {n} of us', '{PROSE} {n}', {values})"
                )
        whole = url.render_as_string(hide_password=False)
        made = next(
            one for one in scaffold(whole, tmp_path).proposal.indexes if one.table == "held"
        )
        assert {*documents_of(whole, made.settings).keys} == {
            str(n) for n in range(1, 61) if n not in (7, 8, 9)
        }
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE held")
        engine.dispose()


def test_arrays_and_uuids_are_read_and_say_who_may_see_a_row(postgres, tmp_path):
    """An array is text, tags or a state; none is a key. A file may name arrays and uuids as text
    without a format."""
    columns = (
        "id uuid, parts text[], tags varchar(20)[], states text[], title text, path text[]"
        " PRIMARY KEY"
    )
    with postgres.database() as name:
        engine, url = sa.create_engine(postgres.url(name)), postgres.url(name)
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE TABLE story ({columns})")
            for n in range(1, 61):
                state, tag = "draft" if n == 7 else "published", ("mill", "river")[n % 2]
                parts, path = f"ARRAY['{PROSE} {n}', 'And so it ends']", f"ARRAY['a', '{n}']"
                row = (
                    f"gen_random_uuid(), {parts}, ARRAY['old', '{tag}'], ARRAY['{state}'], 'Page"
                    f" {n} of us', {path}"
                )
                connection.exec_driver_sql(f"INSERT INTO story VALUES ({row})")
        engine.dispose()
        whole = url.render_as_string(hide_password=False)
        (index,) = scaffold(whole, tmp_path).proposal.indexes
        texts = documents_of(whole, index.settings).texts
        found = documents_of(
            whole, {"table": "story", "key": "id", "title": "path", "text": ["id", "tags"]}
        )
    assert all(
        text.split("\n")[0] in key for key, text in zip(found.keys, found.texts, strict=True)
    )
    assert {text.split("\n")[1] for text in found.texts} == {"old, mill", "old, river"}
    assert (index.settings["key"], index.settings["text"]) == ("id", ["parts", "tags"])
    assert (len(texts), all("And so it ends\nold, " in text for text in texts)) == (59, True)


def test_a_session_of_a_conference_is_a_document_and_one_of_a_program_is_none(propose):
    talks = propose(sessions=many(40, title="The bridge {n} of the river", description=TEXT))
    assert [one.table for one in talks.indexes] == ["sessions"]
    logins = many(40, user_agent=TEXT, payload="YTozOntzOjY6Il90b2tlbiI7czo0MDoiT{n}", last=itself)
    assert propose(sessions=logins).indexes == ()
