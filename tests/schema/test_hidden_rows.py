"""Which rows `init` shows of whole databases: by their own columns, and by what they belong to."""

import sqlite3

import pytest

from rag_index.first_run.schema.candidates import Decisions
from rag_index.first_run.schema.catalog import read_catalog
from rag_index.first_run.schema.hidden_rows import joined
from rag_index.first_run.schema.reading import tables_read
from tests.schema.conftest import TEXT, article, cycle, every, few, itself, many, names, shown

LONG_OBJECT = '{"about": "%s", "private": %%s}' % ("x" * 2_000)
PAST, FUTURE = "2020-01-01 00:00:00", "2099-01-01 00:00:00"


def test_a_flag_hides_rows_and_the_settings_name_what_is_shown(propose):
    made = propose(article=article("is_private", "BOOLEAN NOT NULL", few))
    assert shown(made) == every(lambda n: not few(n))
    assert made.index("article")["visible"] == {"is_private": {"show": ["0"], "hide": ["1"]}}
    (hidden,) = [one for one in made.candidates if one.hidden]
    assert (hidden.id, hidden.hidden, hidden.of, hidden.says) == (
        "article.is_private",
        4,
        24,
        "is_private is yes",
    )
    assert not hidden.is_open


@pytest.mark.parametrize("flag", ["waiting", "is_open", "closed", "hide_email"])
def test_a_state_of_work_or_of_another_thing_hides_nothing(propose, flag):
    columns, rows = article(flag, "BOOLEAN NOT NULL", few)
    assert shown(propose(ticket=(columns, rows)), "ticket") == every()


@pytest.mark.parametrize(
    ("column", "usual", "other"),
    [
        *[
            ("visibility TEXT", "X", "Y"),
            ("visibility INTEGER", 0, 2),
            ("privacy_level INTEGER", 1, 3),
        ],
        *[
            ("deleted_at DATETIME", None, PAST),
            ("hidden_reason TEXT", None, "spam"),
            ("removed_by INTEGER", None, 7),
        ],
        *[
            ("publish_at DATETIME", None, FUTURE),
            ("valid_until DATETIME", None, PAST),
            ("draft_id INTEGER", None, 7),
        ],
        *[("embargo_until DATETIME", None, FUTURE), ("hidden_until DATETIME", None, FUTURE)],
        *[("deleted INTEGER", None, 1_700_000_000), ("post_password TEXT", None, "sesame")],
        *[
            ("published_at DATETIME", PAST, None),
            ("extra JSON", '{"private": false}', '{"private": true}'),
            ("extra JSON", '{"access": {"private": 0}}', '{"access": {"private": 1}}'),
            ("extra JSON", LONG_OBJECT % "false", LONG_OBJECT % "true"),
            ("labels JSON", '["news"]', '["news", "internal"]'),
        ],
        *[
            ("status TEXT", "published", "draft"),
            ("locked BOOLEAN", 0, 1),
            ("fe_group TEXT", "", "3"),
            ("approved_by INTEGER", 3, None),
            ("deleted_on TEXT", "", "04/05/2024"),
            ("deleted_on TEXT", "", "13/05/2024"),
            ("deletion_date TEXT", "", "13. Mai 2024"),
        ],
    ],
)
def test_what_few_rows_have_hides_them_where_it_says_who_may_see_a_row(
    propose, column, usual, other
):
    made = propose(article=article(*column.split(), lambda n: other if few(n) else usual))
    assert shown(made) == every(lambda n: not few(n))


def test_a_password_that_readers_must_know_is_in_no_setting_and_no_question(propose):
    made = propose(article=article("post_password", "TEXT", lambda n: "sesame" if few(n) else None))
    assert shown(made) == every(lambda n: not few(n))
    assert "sesame" not in str(made)


def test_a_value_that_appears_later_is_shown_to_nobody(propose):
    made = propose(article=article("state", "TEXT", lambda n: "draft" if few(n) else "public"))
    with sqlite3.connect(made.url.database) as connection:
        connection.execute("UPDATE article SET state = 'secret' WHERE id = 1")
    assert shown(made) == every(lambda n: not few(n)) - {1}


@pytest.mark.parametrize(
    ("column", "value", "later"),
    [
        ("state TEXT", lambda n: ("open", "done")[n % 2], "secret"),
        ("stage TEXT", lambda n: ("open", "done")[n % 2], "draft"),
        ("hidden_reason TEXT", lambda n: None, "insult"),
        ("deleted_by INTEGER", lambda n: None, 3),
        ("is_private BOOLEAN", lambda n: None, 1),
        ("published BOOLEAN", lambda n: 1, 0),
    ],
)
def test_a_value_that_no_row_has_yet_is_shown_to_nobody(propose, column, value, later):
    made = propose(article=article(*column.split(), value))
    assert shown(made) == every()
    with sqlite3.connect(made.url.database) as connection:
        connection.execute(f"UPDATE article SET {column.split()[0]} = ? WHERE id = 1", (later,))
    assert shown(made) == every() - {1}


def test_a_flag_of_a_list_that_no_row_of_it_has_yet_hides_what_refers_to_it(propose):
    folders = many(6, name="Folder {n}", is_private=0)
    documents = many(24, title="The bridge {n}", body=TEXT, folder_id=cycle(6))
    made = propose(folder=folders, document=documents)
    assert shown(made, "document") == every()
    with sqlite3.connect(made.url.database) as connection:
        connection.execute("UPDATE folder SET is_private = 1 WHERE id = 2")
    assert shown(made, "document") == every(lambda n: n % 6 + 1 != 2)


@pytest.mark.parametrize("share", [7, 14])
def test_who_deleted_a_row_says_that_it_is_deleted_however_many_are(propose, share):
    columns = article("deleted_by", "INTEGER", lambda n: n if n <= share else None)
    made = propose(article=columns)
    assert shown(made) == every(lambda n: n > share)


def test_who_approved_a_row_says_that_it_is_approved_however_many_did(propose):
    made = propose(article=article("approved_by", "INTEGER", lambda n: None if few(n) else n))
    assert shown(made) == every(lambda n: not few(n))


def test_private_notes_do_not_hide_the_rows_that_have_them(propose):
    made = propose(
        article=article("internal_note", "TEXT", lambda n: "call him" if few(n) else None)
    )
    assert shown(made) == every()


def test_an_answer_shows_and_hides_values_and_what_is_not_named_keeps_what_holds(propose):
    columns = article("state", "TEXT", lambda n: ("a", "b", "secret")[n % 3])
    made = propose({"article.state": {"show": ["secret"], "hide": ["b"]}}, article=columns)
    assert shown(made) == every(lambda n: n % 3 != 1)
    facet = article("category", "TEXT", lambda n: ("a", "b", "c")[n % 3])
    assert shown(propose({"article.category": {"hide": ["b"]}}, article=facet)) == every(
        lambda n: n % 3 != 1
    )


def test_a_small_table_is_asked_as_a_whole(propose):
    made = propose(
        newsletter=article("status", "TEXT", lambda n: "sent" if n % 2 else "queued", 12)
    )
    (question,) = made.questions
    assert (question.id, question.column, [one.spoken for one in question.values]) == (
        "newsletter",
        "",
        ["all 12 rows"],
    )
    assert shown(made, "newsletter") == every(count=12)
    hidden = {"newsletter": {"hide": ["all"]}, "article": "document"}
    columns = article("status", "TEXT", lambda n: "sent" if n % 2 else "queued", 12)
    answered = propose(hidden, newsletter=columns, article=article("x", "TEXT", lambda n: "y"))
    assert shown(answered, "newsletter") == set()
    drafts = propose(
        newsletter=article("status", "TEXT", lambda n: "draft" if n == 3 else "queued", 12)
    )
    assert shown(drafts, "newsletter") == every(count=12) - {3}


def test_a_text_with_invalid_bytes_is_shown_to_nobody_and_named_so(propose):
    made = propose(article=article("state", "TEXT", lambda n: "open" if n % 2 else "caf\xe9"))
    with sqlite3.connect(made.url.database) as connection:
        connection.execute("UPDATE article SET state = CAST(x'636166e9' AS TEXT) WHERE id % 2 = 0")
    from rag_index.first_run.schema import propose as proposed
    from rag_index.first_run.schema import read_catalog

    with read_catalog(made.url) as catalog:
        found = proposed(catalog)
    state = next(one for one in found.candidates if one.id == "article.state")
    assert [(one.spoken, one.is_shown) for one in state.values if one.rows] == [
        ("caf\ufffd (not valid text)", False),
        ("open", True),
    ]
    assert found.indexes[0].settings["visible"]["state"] == {"show": ["open", ""], "hide": []}


# --- What belongs to hidden rows ---


def test_what_belongs_to_something_hidden_is_hidden_at_any_number_of_steps(propose):
    """There are private and public spaces, pages in them or in none, and lines and tasks of the
    pages."""
    made = propose(
        space=many(4, name="Space {n}", is_public=lambda n: int(n != 3)),
        page=many(
            40,
            space_id=lambda n: n % 4 + 1 if n % 5 else None,
            title="Page {n} of the mill",
            body=TEXT,
        ),
        page_line=many(
            80,
            page_id=cycle(40),
            text="Line {n} says that the pump behind the mill has stopped again",
        ),
        task=many(80, page_id=cycle(40), title="Task {n} of us", text=TEXT),
    )
    private = {n for n in range(1, 41) if n % 5 and n % 4 + 1 == 3}
    assert shown(made, "page") == every(count=40) - private
    assert shown(made, "task") == {n for n in range(1, 81) if n % 40 + 1 not in private}
    (hidden,) = [one for one in made.candidates if one.hidden]
    assert (hidden.id, hidden.hidden, hidden.of) == ("space.is_public", 8 + 16 + 16, 40 + 80 + 80)


def test_persons_hide_nothing_that_belongs_to_them_and_a_ban_hides_what_they_wrote(propose):
    authors = ("Ada Brandt", "Jon Weaver", "Mira Sand", "Olu Adeyemi")
    articles = many(24, title="The bridge {n}", body=TEXT, author_id=cycle(4))
    for flag, hidden in (("is_hidden", False), ("is_banned", True)):
        person = many(4, name=lambda n: authors[n - 1], **{flag: lambda n: int(n == 2)})
        assert shown(propose(person=person, article=articles)) == every(
            lambda n, no=hidden: not no or n % 4 + 1 != 2
        )


def test_a_table_that_lists_rows_hides_them_and_so_do_labels_and_names_of_labels(propose):
    made = propose(
        article=many(24, title="The bridge {n}", body=TEXT, category_id=lambda n: n % 3 + 1),
        category=names("Roads", "Internal", "Lights"),
        private_article=("article_id INTEGER", [(5,), (9,)]),
        tag=(
            "id INTEGER PRIMARY KEY, name TEXT, is_private INTEGER",
            [(1, "winter", 0), (2, "board", 1)],
        ),
        article_tag=(
            "article_id INTEGER, tag_id INTEGER",
            [(n, 1 + (n == 12)) for n in range(1, 25)],
        ),
    )
    assert shown(made) == every(lambda n: n % 3 + 1 != 2 and n not in (5, 9, 12))


def test_rights_hide_what_they_refuse_with_what_hangs_on_it(propose):
    rights = [(n, role, int(n > 1 or role)) for n in range(1, 7) for role in range(2)]
    made = propose(
        book=names("Roads", "Rivers", "Lights", "Wells", "Boats", "Mills"),
        page=many(24, title="The bridge {n}", body=TEXT, book_id=lambda n: n % 6 + 1),
        book_permission=("book_id INTEGER, role INTEGER, view INTEGER", rights),
    )
    assert shown(made, "page") == every(lambda n: n % 6)


def test_what_is_below_a_hidden_folder_is_hidden(propose):
    tree = {"title": "Folder {n} of the mill", "body": TEXT, "parent_id": lambda n: n // 2}
    assert shown(propose(folder=many(12, **tree, hidden=lambda n: int(n == 2))), "folder") == {
        1,
        3,
        6,
        7,
        12,
    }


def test_an_exception_that_would_hide_most_rows_below_it_hides_its_own_rows(propose):
    tree = {"title": "Folder {n} of the mill", "body": TEXT, "parent_id": lambda n: n // 2}
    made = propose(folder=many(24, **tree, is_site=lambda n: int(n == 1)))
    assert shown(made, "folder") == every(lambda n: n != 1)
    assert [one.id for one in made.questions] == ["folder.is_site"]


def test_a_reference_by_type_hides_what_refers_to_a_hidden_row(propose):
    made = propose(
        page=many(24, title="Page {n} of the mill", body=TEXT, is_draft=lambda n: int(n == 2)),
        event=many(24, title="Event {n} of the mill", body=TEXT),
        remark=many(
            48, about_type=lambda n: ("Page", "Event")[n % 2], about_id=cycle(24), text=TEXT
        ),
    )
    said = " ".join(" ".join(made.documents(one.table).values()) for one in made.indexes)
    of_draft = [n for n in range(1, 49) if n % 24 + 1 == 2 and n % 2 == 0]
    assert not any(f"came to work {n}" in said for n in of_draft)


def test_a_column_that_may_refer_to_hidden_rows_hides_them_and_asks(propose):
    keys = [f"b3f1a9c7e{n:04x}" for n in range(1, 25)]
    letter = many(
        24, "ref", title="Letter {n} of the mill", body=TEXT, is_secret=lambda n: int(n == 2)
    )
    letter = (
        letter[0].replace("INTEGER PRIMARY KEY", "TEXT PRIMARY KEY"),
        [(keys[row[0] - 1], *row[1:]) for row in letter[1]],
    )
    visit = many(
        48,
        told_of=lambda n: keys[n % 24],
        title="Visit {n}",
        note=TEXT,
        made_at=lambda n: f"2024-01-{n % 28 + 1:02} 10:{n:02}:00",
    )
    made = propose(letter=letter, visit=visit)
    assert shown(made, "visit") == every(lambda n: n % 24 != 1, 48)


def test_a_copy_of_a_hidden_text_is_left_out(propose):
    words = "pump mill river stone bread baker winter ice wheel water".split()
    texts = {
        n: f"{words[n % 10]} {words[n % 7]} of house {'x' * (n + 3)} " * 8 for n in range(1, 61)
    }
    post = many(60, topic_id=cycle(24), body=lambda n: texts[n], is_spam=lambda n: int(n % 24 == 1))
    topic = many(
        24,
        title="Topic {n} of the mill",
        summary_text=TEXT,
        last_post_text=lambda n: texts[n + 23 if n != 1 else 24],
    )
    made = propose(topic=topic, post=post)
    assert "last_post_text" not in made.index("topic")["text"]
    copied = next(
        one for table in made.tables for one in table.columns if one.id == "topic.last_post_text"
    )
    assert copied.why == "has texts of hidden rows of post"


def test_names_of_secrets_are_left_out_of_names_with_values(propose):
    account = many(12, title="Account {n} of the mill", note=TEXT)
    kinds = ("remark", "pin-cache", "online-login", "api_token")
    rows = [
        (n, n % 12 + 1, kinds[n % 4], f"Something of it that is {kinds[n % 4]} {n}")
        for n in range(1, 49)
    ]
    made = propose(
        account=account,
        slot=("id INTEGER PRIMARY KEY, account_id INTEGER, name TEXT, value TEXT", rows),
    )
    said = " ".join(made.documents("account").values())
    assert [name for name in kinds if f"is {name}" in said] == ["remark"]


def test_kinds_of_channels_in_codes_hide_what_few_say(propose):
    channel = many(
        24,
        name="Channel of the mill {n}",
        topic=TEXT,
        type=lambda n: "DP"[n > 6] if few(n) else "O",
    )
    posts = [
        (n, n % 24 + 1, f"{TEXT.format(n=n)} by us", "held" if n == 7 else "accepted")
        for n in range(1, 97)
    ]
    made = propose(
        channel=channel,
        post=("id INTEGER PRIMARY KEY, channel_id INTEGER, said TEXT, state TEXT", posts),
    )
    assert [one.says for one in made.candidates if one.id == "channel.type"] == ["type is P or D"]
    found = made.documents(made.indexes[0].table)
    assert not any(
        f" {n} by us" in text
        for text in found.values()
        for n in range(1, 97)
        if few(n % 24 + 1) or n == 7
    )
    assert " 8 by us" in str(found)


@pytest.mark.parametrize(
    "name",
    ["private_notes", "notes_nonpublic", "staff_comment", "note_internal", "rejected_reason"],
)
def test_what_is_said_to_few_is_left_out_in_any_order_of_the_words(propose, name):
    made = propose(article=article(name, "TEXT", lambda n: f"Note {n} that nobody else reads here"))
    assert name not in made.index("article")["text"]


def test_a_row_is_hidden_with_what_it_belongs_to_and_not_with_what_it_names(propose):
    """The library is represented by a body that is not public; a kind that is offered no more, or a
    language, is named by two columns each of the article, the remark and the library."""
    two = {"kind_id": cycle(3), "other_kind_id": cycle(2)}
    agent = {"agent_representation_id": itself}
    agent["kinds"] = dict.fromkeys(agent, "INTEGER REFERENCES corporate_body (id)")
    made = propose(
        corporate_body=many(
            4, name="The society {n} of the river", is_public=lambda n: int(n == 4)
        ),
        kind=many(
            3, name=lambda n: ("print", "sound", "film")[n - 1], hidden=lambda n: int(n == 1)
        ),
        library=many(
            4, name="Library {n} on the quay", is_public=lambda n: int(n != 2), **agent, **two
        ),
        article=many(
            24, title="The bridge {n} of the river", body=TEXT, library_id=cycle(4), **two
        ),
        remark=many(
            24, article_id=itself, said="The ferry {n} was late again and nobody was told", **two
        ),
    )
    assert shown(made) == every(lambda n: cycle(4)(n) != 2)


def contents(texts=72):
    """Return articles, comments and replies that have their texts in one table. A reply links a text
    with a comment, and so with its article."""
    key = "content_id INTEGER PRIMARY KEY REFERENCES content (id)"
    hidden = (5, 9)
    posts = [(n, f"The bridge {n}", int(n not in hidden)) for n in range(1, 25)]
    comments = [(24 + n, n, "2024-05-01 10:00:00") for n in range(1, 25)]
    return {
        "content": many(texts, body=TEXT),
        "article": (f"{key}, title TEXT, visible INTEGER", posts),
        "comment": (
            f"{key}, article_id INTEGER REFERENCES article (content_id), published_at TEXT",
            comments,
        ),
        "reply": (
            f"{key}, comment_id INTEGER REFERENCES comment (content_id)",
            [(48 + n, 24 + n) for n in range(1, 25)],
        ),
    }


def test_what_belongs_to_something_hidden_is_hidden_in_a_circle_of_references(propose):
    propose(**contents(texts=120))
    with read_catalog(propose.url) as catalog:
        tables = tables_read(catalog, Decisions())
        comment = next(one for one in tables if one.name == "comment")
        rows = catalog.rows_that(comment, joined(comment.conditions))
    assert rows == 22


def test_a_text_is_hidden_with_the_row_that_says_what_kind_of_text_it_is(propose):
    assert shown(propose(**contents()), "content") == every(lambda n: n not in (5, 9), 72)
