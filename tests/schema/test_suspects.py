"""References that no declared key explains, labels with a description, lists of banned persons, and
copies of hidden texts."""

import re

import pytest

from tests.schema.conftest import TEXT, cycle, every, many, names, shown

KEYS = [f"b3f1a9c7e{n:04x}" for n in range(1, 25)]


def is_private(n):
    return int(n % 6 == 2)


def document(**more):
    return many(24, title="Document {n} of the mill", body=TEXT, is_private=is_private, **more)


def of_shown(count=48):
    """Return the numbers of the rows that refer to a public document, by their number."""
    return every(lambda n: not is_private(n % 24 + 1), count)


def question(made, name):
    (found,) = [one for one in made.questions if one.id == name]
    return {one.spoken: one.rows for one in found.values}


@pytest.mark.parametrize(
    "column", ["target_item_id", "regarding", "source_id", "attached_to", "origin_ref"]
)
def test_a_declared_key_with_a_role_hides_what_is_said_about_a_hidden_row(propose, column):
    kinds = {column: "INTEGER REFERENCES document (id)"}
    remark = many(48, **{column: cycle(24)}, subject="Remark {n}", body=TEXT, kinds=kinds)
    made = propose(document=document(), remark=remark)
    assert shown(made, "remark") == of_shown()
    if column in ("regarding", "source_id"):
        # a name without a role of its own
        return
    assert question(made, f"remark.{column}") == {"of shown rows": 40, "of hidden rows": 8}
    answers = {f"remark.{column}": {"show": ["of hidden rows"]}}
    assert shown(propose(answers, document=document(), remark=remark), "remark") == every(count=48)


def test_a_verdict_on_a_remark_on_a_hidden_row_is_hidden_too(propose):
    kinds = {"about_item_id": "INTEGER REFERENCES document (id)"}
    remark = many(48, about_item_id=cycle(24), subject="Remark {n}", body=TEXT, kinds=kinds)
    kinds = {"on_entry_id": "INTEGER REFERENCES remark (id)"}
    verdict = many(96, on_entry_id=cycle(48), subject="Verdict {n}", body=TEXT, kinds=kinds)
    made = propose(document=document(), remark=remark, verdict=verdict)
    of_hidden = {n for n in range(1, 97) if is_private((n % 48 + 1) % 24 + 1)}
    assert shown(made, "verdict") == every(count=96) - of_hidden


@pytest.mark.parametrize(
    "column", ["in_folder_id INTEGER", "upper_id INTEGER REFERENCES folder (id)"]
)
def test_a_tree_hides_what_is_below_a_hidden_row_whatever_the_column_is_called(propose, column):
    tree = {"title": "Folder {n} of the mill", "body": TEXT, "hidden": lambda n: int(n == 2)}
    name, kind = column.split(maxsplit=1)
    tree[name] = lambda n: n // 2 or None
    made = propose(folder=many(12, **tree, kinds={name: kind}))
    assert shown(made, "folder") == {1, 3, 6, 7, 12}


def test_the_next_row_and_a_related_one_are_not_above_a_row(propose):
    chain = {"next_id": lambda n: n + 1 if n < 24 else None, "related_id": lambda n: 25 - n}
    kinds = dict.fromkeys(chain, "INTEGER REFERENCES document (id)")
    made = propose(document=document(**chain, kinds=kinds))
    assert shown(made, "document") == every(lambda n: not is_private(n))


@pytest.mark.parametrize(
    "kind", ["document:{n}", "/documents/{n}", "document-{n}", r"App\Models\Document#{n}"]
)
def test_a_text_with_a_kind_and_a_key_refers_to_a_row(propose, kind):
    def about(n):
        return kind.replace("{n}", str(n % 24 + 1)) if n <= 48 else f"photo:{n}"

    made = propose(document=document(), remark=many(60, about=about, body=TEXT, title="Remark {n}"))
    assert shown(made, "remark") == of_shown() | set(range(49, 61))


@pytest.mark.parametrize("column", ["target_kind", "model", "object"])
def test_a_column_whose_values_name_tables_says_of_which_table_a_row_is(propose, column):
    kinds = ("document", "photo")
    made = propose(
        document=document(),
        photo=many(24, title="Photo {n} of the mill", body=TEXT),
        remark=many(
            96,
            **{column: lambda n: kinds[n % 2]},
            target_id=lambda n: n // 2 % 24 + 1,
            text=TEXT.replace("came to work", "walked home"),
        ),
    )
    said = " ".join(text for one in made.indexes for text in made.documents(one.table).values())
    for n in range(1, 97):
        is_hidden = n % 2 == 0 and is_private(n // 2 % 24 + 1)
        is_found = re.search(rf"walked home {n}\b", said) is not None
        assert is_found != bool(is_hidden), n


def test_a_banned_person_is_found_by_the_name_that_a_post_has(propose):
    member = many(
        12,
        nickname="nick{n}name",
        email="n{n}@example.org",
        password=lambda n: f"$2b$12$abcdefghijklmnopqrstuv{n:010}",
        state=lambda n: "banned" if n == 3 else "active",
    )
    post = many(24, title="Post {n}", body=TEXT, author=lambda n: f"nick{n % 12 + 1}name")
    assert shown(propose(member=member, post=post), "post") == every(lambda n: n % 12 + 1 != 3)


def test_a_row_belongs_to_a_project_by_its_code(propose):
    project = many(
        12, name="Project {n}", code="PRJ{n}X", body=TEXT, is_secret=lambda n: int(n == 3)
    )
    ticket = many(24, title="Ticket {n}", body=TEXT, project_code=lambda n: f"PRJ{n % 12 + 1}X")
    made = propose(project=project, ticket=ticket)
    assert shown(made, "ticket") == every(lambda n: n % 12 + 1 != 3)


# --- Labels, containers and lists ---


def test_a_label_with_a_description_among_many_hides_by_its_name(propose):
    label = many(60, name=lambda n: "Internal" if n == 3 else f"label{n}", description=TEXT)
    links = [(n, n % 60 + 1) for n in range(1, 121)] + [(n, 50) for n in range(1, 121)]
    made = propose(
        article=many(120, title="The bridge {n}", body=TEXT),
        tag=label,
        article_tag=("article_id INTEGER, tag_id INTEGER", links),
    )
    assert shown(made) == every(lambda n: n % 60 + 1 != 3, 120)


def test_what_is_on_a_private_and_on_a_public_board_is_public(propose):
    board = many(8, name="Board {n} of the mill", body=TEXT, is_private=lambda n: int(n == 3))
    links = [(n, n % 8 + 1) for n in range(1, 49)] + [(2, 5)]
    made = propose(
        thread=many(48, title="Thread {n}", body=TEXT),
        board=board,
        board_thread=("thread_id INTEGER, board_id INTEGER", links),
    )
    assert shown(made, "thread") == every(lambda n: n % 8 + 1 != 3 or n == 2, 48)


def test_an_order_stays_when_a_product_of_it_is_sold_no_more(propose):
    product = many(12, name="Lamp {n} of the mill", body=TEXT, active=lambda n: int(n != 3))
    items = [(n, n % 12 + 1, 2, 9.5) for n in range(1, 49)]
    made = propose(
        purchase=many(48, title="Purchase {n}", body=TEXT),
        product=product,
        item=("purchase_id INTEGER, product_id INTEGER, pieces INTEGER, price REAL", items),
    )
    assert shown(made, "purchase") == every(count=48)


def persons():
    return many(
        24,
        full_name="Person Number{n}",
        email="n{n}@example.org",
        password=lambda n: f"$2b$12$abcdefghijklmnopqrstuv{n:010}",
    )


@pytest.mark.parametrize(
    ("name", "columns", "row"),
    [
        ("user_bans", "user_id INTEGER REFERENCES users (id), reason TEXT", (5, "insults")),
        ("blacklist", "user_id INTEGER REFERENCES users (id)", (5,)),
        (
            "suspension",
            "account INTEGER REFERENCES users (id), moderator_id INTEGER REFERENCES users (id)",
            (5, 2),
        ),
        ("ban", "username TEXT", ("Person Number5",)),
    ],
)
def test_what_a_person_on_a_list_of_bans_wrote_is_hidden(propose, name, columns, row):
    post = many(48, title="Post {n}", body=TEXT, author_id=cycle(24))
    made = propose(users=persons(), post=post, **{name: (columns, [row])})
    assert shown(made, "post") == every(lambda n: n % 24 + 1 != 5, 48)


@pytest.mark.parametrize(
    ("name", "columns", "row"),
    [
        ("user_block", "blocker_id INTEGER, blocked_id INTEGER", (3, 5)),
        ("page_block", "user_id INTEGER, body TEXT", (5, f"{TEXT} on each page of ours")),
    ],
)
def test_who_blocks_whom_and_a_block_of_a_page_are_no_bans(propose, name, columns, row):
    columns = columns.replace("INTEGER", "INTEGER REFERENCES users (id)")
    post = many(48, title="Post {n}", body=TEXT, author_id=cycle(24))
    made = propose(users=persons(), post=post, **{name: (columns, [row])})
    assert shown(made, "post") == every(count=48)


@pytest.mark.parametrize(
    ("name", "more", "why"),
    [
        ("removed_post", "reason TEXT", "understood"),
        ("blocked_post", "reason TEXT", "understood"),
        ("moderation_queue", "note TEXT", "asked"),
        ("post_access", "team INTEGER", "asked"),
    ],
)
def test_a_list_of_rows_hides_them_by_its_name_also_with_reasons(propose, name, more, why):
    value = TEXT if "TEXT" in more else 7
    columns = f"id INTEGER PRIMARY KEY, post_id INTEGER REFERENCES post (id), {more}"
    made = propose(
        post=many(24, title="Post {n}", body=TEXT),
        **{name: (columns, [(1, 5, value), (2, 9, value)])},
    )
    assert shown(made, "post") == every(lambda n: n not in (5, 9))
    (listed,) = [one for one in made.candidates if one.table == name and one.column == "post_id"]
    assert listed.result == why


def test_a_row_is_hidden_by_what_another_table_says_of_it_alone(propose):
    made = propose(
        article=many(24, title="The bridge {n}", body=TEXT),
        article_meta=many(24, "article_id", is_private=is_private, theme=cycle(3)),
    )
    assert shown(made) == every(lambda n: not is_private(n))


# --- Copies ---

WORDS = "pump mill river stone bread baker winter ice wheel water".split()
TEXTS = {
    n: f"{WORDS[n % 10]} {WORDS[n % 7]} of house {'x' * (n % 30 + 3)}{n} wakes with the sun. " * 8
    for n in range(1, 241)
}


def posts():
    """Return six posts for each of 40 topics: each 30th is deleted, which ends a topic."""
    return many(
        240,
        topic=lambda n: (n - 1) // 6 + 1,
        title="Post {n} of us",
        body=lambda n: TEXTS[n],
        deleted=lambda n: int(n % 30 == 0 or n % 7 == 0),
    )


def last(cut):
    return lambda n: cut(TEXTS[n * 6])


@pytest.mark.parametrize(
    ("column", "cut"),
    [
        ("preview", lambda text: f"{text[:100]}…"),
        ("teaser", lambda text: f"<p>{text[:120]}</p>"),
        ("snippet", lambda text: text[90:200]),
        ("search_text", lambda text: f"Something before it {text}"),
    ],
)
def test_an_excerpt_of_a_hidden_text_is_left_out_though_few_are_hidden(propose, column, cut):
    topic = many(40, title="Topic {n} of the mill", about=TEXT, **{column: last(cut)})
    made = propose(topic=topic, post=posts())
    assert made.index("topic")["text"] == ["about"]


def test_a_title_of_a_hidden_row_is_left_out_where_another_table_keeps_it(propose):
    topic = many(
        40, title="Topic {n} of the mill", about=TEXT, last_title=lambda n: f"Post {n * 6} of us"
    )
    assert made_text(propose(topic=topic, post=posts())) == ["about"]


def made_text(made):
    return made.index("topic")["text"]


def test_a_comment_that_quotes_a_hidden_text_stays(propose):
    def body(n):
        return f"{TEXTS[30][:100]} {TEXT}" if n == 4 else f"{TEXT} {n}"

    made = propose(
        topic=many(40, title="Topic {n} of the mill", about=body), post=posts(), x=names("a", "b")
    )
    assert made_text(made) == ["about"]
