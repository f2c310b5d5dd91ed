"""What is asked is closed until a person answers, and an answer reaches all that belongs to a
row."""

import sys
from functools import partial

import pytest

from rag_index.errors import SettingsError
from tests.schema import conftest
from tests.schema.conftest import TEXT, cycle, itself, many, names, shown

COUNT, PAST = 60, "2020-01-01 00:00:00"
PASSWORD = "$2a$11$kS.b8fe8MPYtjG1ME7TkAOYPYCbA{n:04}"
ASKED = [
    ("held_for_review BOOLEAN", 0, 1, "yes"),
    ("state INTEGER", 4, 9, "9"),
    ("state TEXT", "live", "parked", "parked"),
    ("taken_down_at DATETIME", None, PAST, "past"),
    ("abgenommen TEXT", "yes", "no", "no"),
    ("pinned INTEGER", None, 1, "yes"),
    ("audience TEXT", "all", "staff", "staff"),
]
POST = {"title": "The bridge {n}", "body": TEXT}
FRIENDS = {
    "title": "The friends of the mill {n}",
    "sidebar": TEXT,
    "private_key": "MIIEvQIBADANBgkqh{n}kiG9w0B",
}
BELOW = {
    "community": (  # it signs with a key, and is no account
        many(20, **FRIENDS, removed=lambda n: int(n == 4), kinds={"removed": "BOOLEAN"}),
        {"post": many(60, community_id=cycle(20), at="2024-01-{n:02} 10:00", **POST)},
    ),
    "user": (
        many(10, name="Ada Brandt{n}", is_banned=lambda n: int(n == 4)),
        {"post": many(60, author_id=cycle(10), **POST)},
    ),
    "patient": (  # others write of a patient, and what they wrote is a document of a place
        many(20, firstname="Ada{n}", lastname="Brandt{n}", deleted=lambda n: int(n == 4)),
        {
            "folder": many(5, name="The ward {n} of us", description=TEXT),
            "visit": many(
                60,
                folder_id=cycle(5),
                patient_id=cycle(20),
                seen=TEXT,
                at="2024-01-{n:02} 10:00:{n}",
            ),
        },
    ),
    "repository": (  # the key has a short name
        many(20, name="The mill {n}", about=TEXT, is_private=lambda n: int(n == 4)),
        {
            "repo_topic": many(9, repo_id=itself, colour="red {n}"),
            "release": many(60, repo_id=cycle(20), **POST),
        },
    ),
}
OBJECTS = (
    '{"public": true, "width": %d}',
    '{"width": %d, "public": false}',
    '{"visibility": "private", "x": %d}',
)
STATES = ["site"] * 7 + ["public"] * 2 + ["draft"]


def few(n):
    return n % 20 == 7


def is_usual(n):
    return not few(n)


article, every = partial(conftest.article, count=COUNT), partial(conftest.every, count=COUNT)


@pytest.mark.parametrize(("column", "usual", "other", "said"), ASKED)
def test_a_value_of_few_rows_is_left_out_until_a_person_shows_it(
    propose, column, usual, other, said
):
    name, kind = column.split()
    made = propose(article=article(name, kind, lambda n: other if few(n) else usual))
    (hidden,) = made.questions
    assert shown(made) == every(is_usual)
    assert (hidden.id, hidden.result, hidden.hidden) == (f"article.{name}", "asked", 3)
    assert [(one.spoken, one.rows) for one in hidden.values if one.rows and not one.is_shown] == [
        (said, 3)
    ]
    answers = {f"other.{name}": {"show": [said]}}
    again = propose(answers, other=article(name, kind, lambda n: other if few(n) else usual))
    assert (shown(again, "other"), again.questions) == (every(), [])


@pytest.mark.parametrize(
    "column", "priority lang type edited_kind position category vote_count".split()
)
def test_what_says_something_else_of_few_rows_hides_none(propose, column):
    made = propose(article=article(column, "INTEGER", lambda n: 3 if few(n) else None))
    assert (made.questions, shown(made)) == ([], every())


def test_a_facet_hides_nothing_and_work_is_not_held_back(propose):
    for made in (
        propose(article=article("theme", "TEXT", lambda n: "abc"[n % 3])),
        propose(ticket=article("on_hold", "BOOLEAN", few)),
    ):
        assert not any(one.hidden for one in made.candidates)
    held = propose(comment=article("on_hold", "BOOLEAN", lambda n: n % 5 == 0))
    assert shown(held, "comment") == every(lambda n: n % 5)


def test_an_answer_hides_values_and_refuses_one_that_there_is_not(propose):
    tables = {"article": article("theme", "TEXT", lambda n: ("new", "seen", "parked")[n % 3])}
    made = propose({"article.theme": {"hide": ["parked", "new"]}}, **tables)
    assert shown(made) == every(lambda n: n % 3 == 1)
    with pytest.raises(SettingsError, match=r"late"):
        propose({"article.theme": {"hide": ["late"]}}, **tables)


def music():
    """Return albums with their songs, the reviews of the songs, and a list of concerts that names
    the albums."""
    states = many(
        20,
        title="Album {n} of the mill",
        notes=TEXT,
        theme=lambda n: "aged" if n % 4 == 0 else "fresh",
    )
    song = many(
        60,
        album_id=cycle(20),
        title="Song {n} of the wheel",
        words="The song {n} of the wheel that turns",
    )
    review = many(
        60,
        song_id=itself,
        text="Review {n}: what the miller heard that night was a fine thing to hear",
    )
    concert = many(
        40,
        album_id=cycle(20),
        title="Concert {n}",
        report="The concert {n} on the quay was loud and long",
        held_on=lambda n: f"2024-03-{n % 28 + 1:02} 10:{n}",
    )
    return {"album": states, "song": song, "review": review, "concert": concert}


def test_an_answer_reaches_children_parts_joined_titles_and_documents_of_other_indexes(propose):
    def texts(made):
        return " ".join(text for one in made.indexes for text in made.documents(one.table).values())

    assert "Album 4 of" in texts(propose(**music()))
    said = texts(propose({"album.theme": {"hide": ["aged"]}}, **music()))
    assert "Album 3 of" in said
    assert "The concert 1 on" in said
    for n in [n for n in range(1, 61) if cycle(20)(n) % 4 == 0]:
        gone = (f"Song {n} of", f"Review {n}:", f"The concert {n} on", f"Album {cycle(20)(n)} of")
        assert not [one for one in gone if one in said]


def test_a_row_is_for_few_by_a_large_number_and_as_a_note_on_a_person(propose):
    page = {"owner_id": cycle(20), "state": lambda n: 100 if n == 7 else 1}
    note = many(
        40, person_id=cycle(20), author_id=cycle(20), title="The evening {n} of the talk", note=TEXT
    )
    made = propose(
        person=many(20, name="Ada Brandt{n}", password=PASSWORD),
        page=many(60, title="The bridge {n}", body=TEXT, **page),
        person_note=note,
    )
    assert shown(made, "page") == every(lambda n: n != 7)
    assert [one.table for one in made.indexes] == ["page"]


def test_what_an_account_wrote_is_hidden_with_it_and_stays_when_it_has_left(propose):
    login = {"password": PASSWORD, "email": "a{n}@example.org"}
    for name, state, left in (("one", "hidden_at", True), ("two", "deleted_at", False)):
        since = {state: lambda n: PAST if n == 2 else None, "kinds": {state: "DATETIME"}}
        user = many(10, name="Ada Brandt{n}", **login, **since)
        named = {"author_id": f"INTEGER REFERENCES user_{name} (id)"}
        post = many(60, title="The bridge {n}", body=TEXT, author_id=cycle(10), kinds=named)
        made = propose(**{f"user_{name}": user, f"post_{name}": post})
        assert shown(made, f"post_{name}") == every(
            lambda n, left=left: not left or cycle(10)(n) != 2
        )


def test_a_flag_or_grade_that_all_rows_share_and_a_number_in_an_order_say_nothing_of_a_row(propose):
    made = propose(
        kind=many(3, name=lambda n: ("Roads", "Lights", "Rails")[n - 1], is_private=1),
        article=many(60, title="The bridge {n}", body=TEXT, kind_id=cycle(3)),
        task_grade=many(120, task_id=cycle(60), points=lambda n: n % 9),
        assign=many(60, name="Build the sundial {n}", intro=TEXT, grade=100),
        person=many(30, name="Ada Brandt{n}", email="a{n}@example.org"),
        course=many(30, name="Pin the wheel {n} of the mill", content=TEXT, order_by=itself),
    )
    assert (shown(made), shown(made, "assign"), shown(made, "course")) == (
        every(),
        every(),
        every(count=30),
    )
    assert not made.parts("assign")
    assert not any("Brandt" in text for text in made.documents("course").values())


@pytest.mark.parametrize(("table", "is_sure"), [("hidden_article", True), ("review_case", False)])
def test_a_list_beside_of_few_rows_is_left_out_and_asked_unless_its_name_says_so(
    propose, table, is_sure
):
    listed = {table: ("article_id INTEGER PRIMARY KEY, at DATETIME", [(5, PAST), (9, PAST)])}
    made = propose(article=many(60, title="The bridge {n}", body=TEXT), **listed)
    assert shown(made) == every(lambda n: n not in (5, 9))
    assert [one.id for one in made.questions] == [f"{table}.article_id"] * (not is_sure)
    answer = {f"{table}.article_id": {"show": ["listed"]}}
    again = propose(answer, article=many(60, title="The bridge {n}", body=TEXT), **listed)
    assert shown(again) == every()


def test_rows_that_few_groups_may_read_are_open(propose):
    made = propose(
        article=many(60, title="The bridge {n}", body=TEXT),
        reader_group=names("Board", "Crew"),
        article_access=(
            (
                "article_id INTEGER, reader_group_id INTEGER, PRIMARY KEY (article_id,"
                " reader_group_id)"
            ),
            [(5, 1), (5, 2), (9, 2)],
        ),
    )
    assert shown(made) == every(lambda n: n not in (5, 9))


def test_what_is_not_for_everybody_is_left_out_however_large_and_comes_by_name(propose):
    for table, columns, why in (
        (
            "message",
            {"sender_id": cycle(4), "recipient_id": cycle(3)},
            "has messages between persons",
        ),
        (
            "message",
            {"from_user": cycle(4), "to_user": cycle(3)},
            "has messages between persons",
        ),
        ("letter_message", {"person_id": cycle(4)}, "has messages between persons"),
        (
            "post_report",
            {"post_id": cycle(30), "reporter_id": cycle(4)},
            "has reports to moderators",
        ),
        ("audit", {"person_id": cycle(4)}, "is for programs, by its name"),
    ):
        tables = {
            "person": many(4, name="Ada Brandt{n}", email="a{n}@example.org"),
            "post": many(30, title="The bridge {n}", body=TEXT),
            table: many(400, subject="About {n}", body=TEXT, **columns),
        }
        assert {one.name: one.why for one in propose(**tables).tables}[table] == why, table
        answers = {one.name: "leave out" for one in propose(**tables).tables} | {table: "document"}
        assert [one.table for one in propose(answers, **tables).indexes] == [table], table


@pytest.mark.parametrize("name", ["ticket_search", "ticket_fts", "ticket_all"])
def test_a_copy_with_remarks_for_staff_is_left_out_whatever_it_is_called(propose, name):
    note = (
        "Nobody has told them yet that {n} of the wheels were bought from the brother of the miller"
    )
    copied = many(30, ticket_id=itself, content=f"{TEXT} {note}")
    made = propose(
        **{"ticket": many(30, title="The bridge {n}", body=TEXT, internal_note=note), name: copied}
    )
    assert [one.table for one in made.indexes] == ["ticket"]
    assert not any("Nobody has told" in text for text in made.documents("ticket").values())


def test_a_note_that_a_customer_may_see_is_no_message_to_one(propose):
    note = many(60, ticket_id=cycle(30), body=f"{TEXT} too", visible_to_customer=cycle(2))
    made = propose(ticket=many(30, title="The bridge {n}", body=TEXT), note=note)
    assert made.parts("ticket") == ["note"]


def test_messages_of_participants_and_those_that_a_table_links_with_persons_are_left_out(propose):
    made = propose(
        user=many(4, name="Ada Brandt{n}", email="a{n}@example.org"),
        page=many(30, title="Page {n}", body=TEXT),
        conversation=many(10, subject="About the mill {n}"),
        participant=many(20, conversation_id=cycle(10), user_id=cycle(4)),
        answer=many(60, conversation_id=cycle(10), body=f"{TEXT} too"),
        message=many(20, title="About the mill {n}"),
        user_message=many(40, message_id=cycle(20), user_id=cycle(4)),
        message_entry=many(60, message_id=cycle(20), user_id=cycle(4), content=TEXT),
    )
    assert [one.table for one in made.indexes] == ["page"]


def test_the_work_for_a_table_grows_as_its_columns_do(propose):
    calls = {}
    for count in (100, 300):
        columns = {
            f"c{n}": f"The value number {n} of row {{n}} is written here by {n}"
            for n in range(count)
        }
        made = 0

        def one_more(*_):
            nonlocal made
            made += 1

        sys.setprofile(one_more)
        try:
            propose(answer=many(20, **columns))
        finally:
            sys.setprofile(None)
        calls[count] = made
    assert calls[300] < 5 * calls[100]


def test_what_moderators_are_told_and_what_hangs_on_it_is_left_out_and_joined_by_nothing(propose):
    """A report of a person names two; a list of taken down rows is no text."""
    made = propose(
        person=many(9, name="Ada Brandt{n}", email="a{n}@example.org"),
        post=many(60, title="The bridge {n}", body=TEXT, made_at="2024-01-{n:02} 10:00"),
        abuse_report=many(
            30,
            reporter_id=cycle(9),
            target_id=cycle(8),
            reason=TEXT,
            kinds=dict.fromkeys(("reporter_id", "target_id"), "INTEGER REFERENCES person (id)"),
        ),
        report_message=many(40, report_id=cycle(30), message=TEXT),
        post_moderation_note=many(30, post_id=cycle(60), note=TEXT),
        post_hidden=many(2, post_id=itself, reason="copyright"),
    )
    assert [one.table for one in made.indexes] == ["post"]
    assert made.parts("post") == []
    assert shown(made, "post") == every(lambda n: n > 2)


@pytest.mark.parametrize("name", BELOW)
def test_what_belongs_to_something_that_is_hidden_is_left_out(propose, name):
    above, tables = BELOW[name]
    *_, table = tables
    assert shown(propose(**{name: above}, **tables), table) == every(
        lambda n: cycle(len(above[1]))(n) != 4
    )


def test_a_number_of_whom_a_row_is_for_a_day_to_come_and_an_object_hide_it(propose):
    for column, value, is_shown in (
        ("restricted_by INTEGER", lambda n: n if few(n) else None, is_usual),
        ("published_on DATE", lambda n: "9999-01-01" if few(n) else PAST, is_usual),
        ("publish_date DATE", lambda n: "9999-01-01" if few(n) else PAST, is_usual),
        ("flags JSON", lambda n: OBJECTS[n % 3] % n, lambda n: n % 3 == 0),
        ("settings JSON", lambda n: OBJECTS[n % 3] % n, lambda n: n % 3 == 0),
        ("publish_state TEXT", lambda n: STATES[n % 10], lambda n: STATES[n % 10] == "public"),
    ):
        assert shown(propose(post=article(*column.split(), value)), "post") == every(is_shown), (
            column
        )


def test_what_is_for_few_by_a_name_in_one_word_or_plural_is_left_out_and_a_file_name_is_no_secret(
    propose,
):
    made = propose(
        page=many(30, title="Page {n}", body=TEXT),
        deletedpage=many(9, title="Gone {n}", body=TEXT),
        scheduledposts=many(30, message=TEXT, scheduledat=lambda n: 4_000_000_000_000 + n),
        fileinfo=many(60, name="the-mobile-app-{n}.pdf", content=TEXT),
    )
    assert {one.table for one in made.indexes} == {"page", "fileinfo"}
    assert shown(made, "fileinfo") == every()


def test_rows_with_rights_of_their_own_and_what_hangs_on_a_list_for_few_are_left_out(propose):
    made = propose(
        page=many(60, title="The bridge {n} of wood", body=TEXT),
        reader_role=names("Board", "Crew"),
        page_permission=many(2, page_id=lambda n: 4 + n, reader_role_id=1, view=0),
        calendar=(
            f"{names('Public', 'Private')[0]}, colour TEXT, note TEXT",
            [(1, "Public Calendar", "red", None), (2, "Private Calendar", "blue", None)],
        ),
        calendar_page=(
            "calendar_id INTEGER, page_id INTEGER, PRIMARY KEY (calendar_id, page_id)",
            [(2 if n in (9, 12) else 1, n) for n in range(1, 61)],
        ),
    )
    assert shown(made, "page") == every(lambda n: n not in (5, 6, 9, 12))


def test_an_open_room_is_known_by_its_code_however_many_others_there_are(propose):
    room = many(30, name="The room {n} of us", purpose=TEXT, type=lambda n: "DPO"[n % 3])
    made = propose(
        channel=room,
        post=many(60, channel_id=cycle(30), message=TEXT, at="2024-01-{n:02} 10:00:{n}"),
    )
    assert shown(made, "channel") == every(lambda n: n % 3 == 2, count=30)


def test_a_table_that_is_left_out_says_who_may_see_the_rows_of_others_and_is_not_joined(propose):
    made = propose(
        {"album": "leave out"},
        album=many(20, title="Album {n} of the mill", notes=TEXT, is_private=lambda n: int(n == 4)),
        song=many(
            60,
            album_id=cycle(20),
            title="Song {n} of the wheel",
            words=TEXT,
            sung_at="2024-01-{n:02} 10:00",
        ),
    )
    assert [one.table for one in made.indexes] == ["song"]
    assert shown(made, "song") == every(lambda n: cycle(20)(n) != 4)
    assert "joins" not in made.indexes[0].settings
    assert {one.name: one.why for one in made.tables}["album"] == "is left out, as you said"
