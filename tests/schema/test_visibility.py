"""Which rows `init` shows: flags in both directions and several languages, states, times, and what other tables say."""

import pytest

from rag_index.first_run.schema.visibility import sense_of
from rag_index.first_run.schema.words import words
from tests.schema.conftest import TEXT, article, cycle, every, few, itself, many, names, shown

PAST, FUTURE = "2020-01-01 00:00:00", "2099-01-01 00:00:00"
HIDE = """
    non_public not_visible is_not_public unpublished invisible nonpublic disabled hide_from_search hidden isPrivate
    private is_confidential internal deleted soft_deleted is_draft spam no_index noindex notpublic hidefromsearch
    adminonly exclude_from_search suppressed restricted unlisted members_only staff_only login_required
    do_not_publish inactive is_not_visible_to_public versteckt nicht_oeffentlich unveroeffentlicht vertraulich
    non_publie brouillon no_publico borrador personal embargoed not_current quarantined
""".split()
SHOW = """
    public is_published visible active enabled not_hidden is_not_private not_deleted searchable show_on_website
    undeleted visible_to_customers publicly_visible approved oeffentlich sichtbar veroeffentlicht publie publico
    unhidden is_not_confidential listed is_latest
""".split()
WORK = """
    on_hold waiting done is_open closed resolved is_blocked pinned locked archived is_read comments_enabled
    has_attachment is_vip hide_from_homepage show_in_menu in_stock reviewed cancelled in_progress pending paused
    hide_email
""".split()


@pytest.mark.parametrize("flag", [*HIDE, *SHOW, *WORK])
def test_a_flag_hides_rows_in_both_directions_whatever_the_words_or_none(propose, flag):
    """A state of work, and what is about something else, such as the comments of a row, hide nothing."""
    yes = (lambda n: not few(n)) if flag in SHOW else few
    made = propose(article=article(flag, "BOOLEAN NOT NULL", yes))
    assert shown(made) == every(lambda n: flag in WORK or not few(n))
    if flag in HIDE:
        (hidden,) = made.hidden
        assert (hidden.rows, hidden.of, hidden.says) == (4, 24, f"{flag} is yes")
        assert (hidden.values, hidden.state) == ((("no", 20, False), ("yes", 4, True)), "known")


@pytest.mark.parametrize(("name", "hides"), [("is_not_public", True), ("unhidden", False), ("hide_from_public", True)])
def test_a_negation_is_understood_first(name, hides):
    assert sense_of(words(name))[0] is hides
    assert sense_of(words("robotics")) is None


@pytest.mark.parametrize(
    ("column", "values", "hidden"),
    [
        ("state TEXT", ["waiting", "waiting", "waiting", "done"], []),
        ("status TEXT", ["open", "closed", "on hold", "pending", "rejected"], []),
        ("status TEXT", ["publish", "draft", "private", "publish"], ["draft", "private"]),
        ("class TEXT", ["PUBLIC", "PUBLIC", "PRIVATE", "CONFIDENTIAL"], ["PRIVATE", "CONFIDENTIAL"]),
        ("visibility TEXT", ["public", "team", "public"], ["team"]),
        ("access TEXT", ["everyone", "staff", "everyone"], ["staff"]),
        ("kind TEXT", ["public reply", "internal note", "public reply"], ["internal note"]),
        ("folder TEXT", ["Inbox", "Trash", "Inbox", "Spam"], ["Trash", "Spam"]),
        ("product_type TEXT", ["bottle", "draft beer", "robot"], []),
        ("care_type TEXT", ["INPATIENT", "OUTPATIENT"], []),
        ("department TEXT", ["Internal medicine", "Surgery"], []),
        ("statut TEXT", ["publie", "brouillon", "prepa"], ["brouillon", "prepa"]),
        ("access TEXT", ["low", "high", "low"], ["high"]),
        ("place TEXT", ["left", "right", "staff_only"], ["staff_only"]),
        ("status INTEGER", [1, 1, 1, 0], []),
        ("is_private TEXT", ["N", "N", "Y"], ["Y"]),
        ("is_public TEXT", ["yes", "yes", "no"], ["no"]),
        ("status INTEGER", [1, 1, 2, 0], []),
    ],
)
def test_values_say_who_may_see_a_row_as_whole_words(propose, column, values, hidden):
    name, kind = column.split()
    made = propose(article=article(name, kind, lambda n: values[n % len(values)]))
    assert shown(made) == every(lambda n: values[n % len(values)] not in hidden)


@pytest.mark.parametrize(
    ("column", "usual", "other"),
    [
        *[("visibility TEXT", "X", "Y"), ("visibility INTEGER", 0, 2), ("privacy_level INTEGER", 1, 3)],
        *[("confidentiality TEXT", "low", "high"), ("archive_policy INTEGER", 2, 1)],
        *[("deleted_at DATETIME", None, PAST), ("hidden_reason TEXT", None, "spam"), ("removed_by INTEGER", None, 7)],
        *[("publish_at DATETIME", None, FUTURE), ("valid_until DATETIME", None, PAST), ("draft_id INTEGER", None, 7)],
        *[("embargo_until DATETIME", None, FUTURE), ("hidden_until DATETIME", None, FUTURE)],
        *[("deleted INTEGER", None, 1_700_000_000), ("post_password TEXT", None, "sesame")],
        ("published_at DATETIME", PAST, None),
    ],
)
def test_what_few_rows_have_hides_them_where_its_name_says_who_may_see_a_row(propose, column, usual, other):
    """A value that is not understood does, and a time of publication that drafts do not have."""
    made = propose(article=article(*column.split(), lambda n: other if few(n) else usual))
    assert (shown(made), [one.state for one in made.hidden]) == (every(lambda n: not few(n)), ["known"])


def test_a_time_of_deletion_that_nobody_set_stays_a_condition(propose):
    assert "deleted_at" in propose(article=article("deleted_at", "DATETIME", lambda n: None)).index("article")["where"]


@pytest.mark.parametrize("flag", ["is_public", "visible_to_student", "active"])
def test_a_certain_word_hides_most_rows_and_asks_and_no_weak_word_leaves_the_minority_alone(propose, flag):
    made = propose(article=article(flag, "BOOLEAN NOT NULL", few))
    assert shown(made) == (every() if flag == "active" else every(few))
    assert [(one.place, one.large) for one in made.questions] == [(f"article.{flag}", True)] * (flag != "active")


def test_what_belongs_to_something_hidden_is_hidden_at_any_number_of_steps(propose):
    """There are private and public spaces, pages in them or in none, and lines and tasks of the pages."""
    made = propose(
        space=many(4, name="Space {n}", is_public=lambda n: int(n != 3)),
        page=many(40, space_id=lambda n: n % 4 + 1 if n % 5 else None, title="Page {n} of the mill", body=TEXT),
        page_line=many(80, page_id=cycle(40), text="Line {n} says that the pump behind the mill has stopped again"),
        task=many(80, page_id=cycle(40), title="Task {n} of us", text=TEXT),
    )
    private = {n for n in range(1, 41) if n % 5 and n % 4 + 1 == 3}
    assert shown(made, "page") == every(count=40) - private
    assert shown(made, "task") == {n for n in range(1, 81) if n % 40 + 1 not in private}
    (hidden,) = made.hidden
    assert (hidden.place, hidden.rows, hidden.of) == ("space.is_public", 8 + 16 + 16, 40 + 80 + 80)


def test_persons_hide_nothing_that_belongs_to_them(propose):
    authors = ("Ada Brandt", "Jon Weaver", "Mira Sand", "Olu Adeyemi")
    person = many(4, name=lambda n: authors[n - 1], is_hidden=lambda n: int(n == 2))
    article = many(24, title="The bridge {n}", body=TEXT, author_id=cycle(4))
    assert shown(propose(person=person, article=article)) == every()


def test_a_table_that_lists_rows_hides_them_and_so_do_labels_and_names_of_labels(propose):
    made = propose(
        article=many(24, title="The bridge {n}", body=TEXT, category_id=lambda n: n % 3 + 1),
        category=names("Roads", "Internal", "Lights"),
        private_article=("article_id INTEGER", [(5,), (9,)]),
        tag=("id INTEGER PRIMARY KEY, name TEXT, is_private INTEGER", [(1, "winter", 0), (2, "board", 1)]),
        article_tag=("article_id INTEGER, tag_id INTEGER", [(n, 1 + (n == 12)) for n in range(1, 25)]),
    )
    assert shown(made) == every(lambda n: n % 3 + 1 != 2 and n not in (5, 9, 12))


def test_a_file_of_a_row_hides_nothing_and_rights_hide_what_they_refuse_with_what_hangs_on_it(propose):
    rights = [(n, role, int(n > 1 or role)) for n in range(1, 7) for role in range(2)]
    made = propose(
        book=names("Roads", "Rivers", "Lights", "Wells", "Boats", "Mills"),
        page=many(24, title="The bridge {n}", body=TEXT, book_id=lambda n: n % 6 + 1),
        attachment=("id INTEGER PRIMARY KEY, page_id INTEGER", [(1, 5), (2, 9)]),
        book_permission=("book_id INTEGER, role INTEGER, view INTEGER", rights),
    )
    assert shown(made, "page") == every(lambda n: n % 6)


@pytest.mark.parametrize(("flag", "expected"), [("hidden", {1, 3, 6, 7, 12}), ("no_search", {1, *range(3, 13)})])
def test_what_is_below_a_hidden_folder_is_hidden_unless_it_is_kept_out_of_searches_alone(propose, flag, expected):
    tree = {"title": "Folder {n} of the mill", "body": TEXT, "parent_id": lambda n: n // 2}
    assert shown(propose(folder=many(12, **tree, **{flag: lambda n: int(n == 2)})), "folder") == expected


def test_names_of_secrets_are_left_out_of_names_with_values(propose):
    account = many(12, title="Account {n} of the mill", note=TEXT)
    kinds = ("remark", "pin-cache", "online-iban", "api_token")
    rows = [(n, n % 12 + 1, kinds[n % 4], f"Something of it that is {kinds[n % 4]} {n}") for n in range(1, 49)]
    made = propose(account=account, slot=("id INTEGER PRIMARY KEY, account_id INTEGER, name TEXT, value TEXT", rows))
    said = " ".join(made.documents("account").values())
    assert [name for name in kinds if f"is {name}" in said] == ["remark"]


def test_kinds_of_channels_in_codes_hide_what_differs_and_ask(propose):
    channel = many(12, name="Channel of the mill {n}", topic=TEXT, type=lambda n: "DP"[n > 6] if few(n) else "O")
    posts = [(n, n % 12 + 1, f"{TEXT.format(n=n)} by us", "held" if n == 7 else "accepted") for n in range(1, 49)]
    made = propose(channel=channel, post=("id INTEGER PRIMARY KEY, channel_id INTEGER, said TEXT, state TEXT", posts))
    assert [one.says for one in made.hidden if one.place == "channel.type"] == ["type is D or P"]
    found = made.documents(made.indexes[0].table)
    assert not any(f" {n} by us" in text for text in found.values() for n in range(1, 49) if few(n % 12 + 1) or n == 7)
    assert " 8 by us" in str(found)


def test_a_list_of_groups_of_accounts_hides_a_row_and_asks(propose):
    login = {"usergroup": "1", "email": "a{n}@example.org", "password": "$2a$11$kS.b8fe8MPYtjG1ME7TkAOYPYCbA{n:04}"}
    made = propose(
        article=article("fe_group", "TEXT", lambda n: "1,2" if few(n) else "0" if n % 2 else ""),
        fe_group=names("Members", "Board", key="uid", name="title"),
        fe_user=many(12, "uid", **login),
    )
    assert (shown(made), [one.says for one in made.hidden]) == (every(lambda n: not few(n)), ["fe_group is 1,2"])


def test_rows_that_a_table_of_versions_calls_former_are_hidden(propose):
    post = many(12, title="Page {n} of the mill", body=TEXT)
    pages = "past_id INTEGER PRIMARY KEY REFERENCES post (id), current_id INTEGER REFERENCES post (id)"
    made = propose(post=post, post_version=(pages, [(5, 3), (9, 3)]))
    assert shown(made, "post") == every(lambda n: n not in (5, 9), count=12)


@pytest.mark.parametrize("name", ["private_notes", "staff_comment", "note_internal", "rejected_reason"])
def test_what_is_said_to_few_is_left_out_in_any_order_of_the_words(propose, name):
    made = propose(article=article(name, "TEXT", lambda n: f"Note {n} that nobody else reads here"))
    assert name not in made.index("article")["text"]


def test_a_row_is_hidden_with_what_it_belongs_to_and_not_with_what_it_names(propose):
    """The library is represented by a body that is not public; a kind that is offered no more, or a language, is named
    by two columns each of the article, the remark and the library."""
    two = {"kind_id": cycle(3), "other_kind_id": cycle(2)}
    agent = {"agent_representation_id": itself}
    agent["kinds"] = dict.fromkeys(agent, "INTEGER REFERENCES corporate_body (id)")
    made = propose(
        corporate_body=many(4, name="The society {n} of the river", is_public=lambda n: int(n == 4)),
        kind=many(3, name=lambda n: ("print", "sound", "film")[n - 1], hidden=lambda n: int(n == 1)),
        library=many(4, name="Library {n} on the quay", is_public=lambda n: int(n != 2), **agent, **two),
        article=many(24, title="The bridge {n} of the river", body=TEXT, library_id=cycle(4), **two),
        remark=many(24, article_id=itself, said="The ferry {n} was late again and nobody was told", **two),
    )
    assert shown(made) == every(lambda n: cycle(4)(n) != 2)
