"""What `init` proposes as name, title and text of a document."""

import pytest
import sqlalchemy as sa

from rag_index.first_run.schema import scaffold
from tests.schema.proposals import DAY, PROSE, TEXT, cms, cycle, itself, many, pages


def a_job(n):
    return f"{('Export', 'Sales', 'Order', 'Head')[n % 4]} {('Administrator', 'Manager')[n % 2]}"


@pytest.mark.parametrize(
    ("columns", "title"),
    [
        ({"FirstName": "Ann{n}", "LastName": "Miller{n}", "Title": a_job, "Notes": TEXT}, "{FirstName} {LastName}"),
        ({"company_name": "Mill {n} and sons", "contact_title": a_job}, "company_name"),
        ({"title": "Miller of the {n}. mill", "name": "Kim Mill {n}", "email": "kim{n}@mill.test"}, "name"),
        ({"display_name": lambda n: f"Dr. Mara Ott{n}" if n % 2 else f"Mill {n} Ltd", "note": TEXT,
          "first_name": lambda n: "Mara" if n % 2 else None, "last_name": lambda n: f"Ott{n}" if n % 2 else None},
         "display_name"),
    ],
)  # fmt: skip
def test_rows_are_called_by_what_tells_them_apart_and_persons_by_their_names(propose, columns, title):
    made = propose(contacts=many(15, **columns))
    assert (made.index("contacts")["title"], "where" in made.index("contacts")) == (title, False)


def test_labels_that_exist_as_a_draft_too_are_shown_with_what_they_are_labels_of(propose):
    """In the way of Strapi: each row stands twice, and what is published has a time."""
    day = {"published_at": lambda n: "2026-01-01 10:00:00" if n % 2 else None}
    traits = {"label": lambda n: f"Calm no. {(n + 1) // 2}", **day}
    made = propose(
        cats=many(40, name=lambda n: f"Tom {(n + 1) // 2} of it", about=lambda n: f"{TEXT} {(n + 1) // 2}", **day),
        traits=many(20, **traits, kinds={"published_at": "DATETIME"}),
        cats_traits=many(40, cat_id=itself, trait_id=cycle(20)),
    )
    assert made.parts("cats") == ["cats_traits"]


@pytest.mark.parametrize(
    ("table", "name"), [("Aufträge", "auftrage"), ("订单", "ding-dan"), ("__x__y", "x-y"), ("#", "index")]
)
def test_an_index_is_called_like_its_table_in_letters_that_names_may_have(propose, table, name):
    [page] = propose(**{table: pages("note TEXT", [None])}).indexes
    assert page.name == name


def test_names_without_letters_are_names(propose):
    odd = {"%": lambda n: "ab"[n % 2], "!": itself, "title": "Page {n} of the mill", "body": TEXT}
    assert propose(_=many(12, "#", **odd)).index("_")["key"] == "#"


def test_the_column_with_the_language_of_a_row_is_named_if_there_are_several(propose):
    made = propose(page=pages("locale TEXT", ["en_GB", "de_DE"]), article=pages("locale TEXT", ["de_DE"]))
    several, one = made.index("page"), made.index("article")
    assert (sorted(several["language"]), several["language_column"]) == (["english", "german"], "locale")
    assert (one["language"], one.get("language_column")) == ("german", None)


@pytest.mark.parametrize(("published", "where"), [("published_at", "archived_at IS NULL"), ("opened_at", None)])
def test_what_was_archived_after_it_was_published_is_not_out(propose, published, where):
    times = {published: DAY, "archived_at": lambda n: DAY if n == 3 else None}
    made = propose(pages=many(12, title="Page {n}", body=TEXT, **times, kinds=dict.fromkeys(times, "DATETIME")))
    assert made.index("pages").get("where") == where


def test_a_time_of_publication_that_most_rows_lack_hides_none(propose):
    times = {"published_at": lambda n: DAY if n < 5 else None, "kinds": {"published_at": "DATETIME"}}
    assert "where" not in propose(podcasts=many(12, title="Podcast {n}", body=TEXT, **times)).index("podcasts")


DUMP = "---\n:inbound:\n  :host: imap{n}.mill.example\n  :password: horse{n}\n"


@pytest.mark.parametrize(("text", "found"), [(DUMP, False), ("---\ntitle: Mill {n}\n---\n" + TEXT, True)])
def test_objects_that_a_program_wrote_as_yaml_are_no_text_and_front_matter_is(propose, text, found):
    made = propose(channels=many(24, name="Channel {n} of the mill", body=text))
    assert ("body" in str([one.settings.get("text") for one in made.indexes])) is found


def test_orders_called_by_a_code_are_no_parts_of_a_customer(propose):
    orders = many(30, company_id=cycle(12), name=lambda n: f"SO/2024/{n:04}", note=TEXT)
    assert "name" in propose(companies=pages(), sale_orders=orders).index("sale_orders")["text"]


def test_texts_in_several_languages_in_one_value_have_no_keys_and_words_alone_are_titles(propose):
    names = {"name": lambda n: f'{{"en_US": "Chair{n}", "fr_FR": "Chaise{n}"}}'}
    names["description"] = lambda n: f'{{"en_US": "{PROSE} {n}"}}'
    one = propose(products=many(12, **names, kinds=dict.fromkeys(names, "JSON"))).index("products")
    assert (one["title"], one["text"], one["format"]["name"]) == ("name", ["description"], "json")


def test_a_password_of_few_rows_and_the_id_of_a_user_make_no_account(propose):
    """Nor does a word of a newsletter, such as `email_digest`."""
    few = {"modified_user_id": cycle(3), "email_digest": 1}
    password = {"password": lambda n: "s3cret-3" if n == 3 else None}
    made = propose(meetings=many(12, name="Meeting no. {n}", description=TEXT, **few, **password))
    assert made.index("meetings")["where"] == "COALESCE(password, '') = ''"


def test_a_letter_that_says_who_may_see_a_row_is_no_text(propose):
    assert propose(links=pages("link_visible TEXT", ["Y", "N", "Y"], 3)).index("links")["text"] == ["body"]


def test_of_two_versions_the_one_that_is_out_is_shown(propose):
    assert propose(**cms(kinds=0)).index("page")["text"] == ["live_revision.content"]


def test_an_older_version_that_a_remark_names_is_no_text_of_it(propose):
    remarks = {"issue_id": itself, "description_version_id": itself, "action": "description"}
    made = propose(
        issues=many(24, title="Issue {n} of the mill", description=TEXT),
        description_versions=many(24, issue_id=itself, description=f"{PROSE} as it was {{n}}"),
        issue_remarks=many(24, **remarks),
    )
    assert "description_versions" not in str(made.index("issues"))


def test_pages_with_titles_and_texts_are_no_parts_of_a_wiki_that_has_none(propose):
    wiki_pages = many(13, wiki_id=cycle(5), title="Page {n} of the mill", text=TEXT)
    made = propose(wikis=many(5, name="Wiki {n} of the mill"), wiki_pages=wiki_pages)
    assert [one.tables[0] for one in made.indexes] == ["wiki_pages"]


def test_one_row_with_a_few_words_is_nothing_to_look_for(propose):
    made = propose(pages=pages(), offers=many(1, name="Autumn", description="For the first year"))
    assert [one.tables[0] for one in made.indexes] == ["pages"]


def test_json_for_programs_and_links_of_two_tables_are_nothing_to_read(propose):
    made = propose(
        pages=pages("rules JSON", ['{"minimum": "12 pieces", "operator": "or"}']),
        tags=many(3, name="Tag {n}"),
        page_tag=many(12, page_id=itself, tag_id=cycle(3), position=itself),
        page_tag_note=many(12, page_tag_id=itself, note=f"Noted by {{n}}: {PROSE}"),
    )
    assert "page_tag" not in [one.tables[0] for one in made.indexes]
    assert made.index("pages")["text"] == ["body"]


def test_a_main_table_called_content_is_no_text_of_others(propose):
    said = [f"{n} times a day {PROSE}" for n in range(13)]
    links = [(n + 50, f"Page {n} of the mill", f"{said[n][:80]} …") for n in range(1, 13)]
    made = propose(
        app_content=many(12, title="Page {n} of the mill", body=lambda n: said[n], catid=cycle(3)),
        app_category=many(3, title="Category {n}"),
        app_content_front=many(5, "content_id", ordering=itself),
        app_finder_link=("link_id INTEGER PRIMARY KEY, name TEXT, summary TEXT", links),
    )
    assert [one.tables[0] for one in made.indexes] == ["app_content"]


@pytest.fixture
def read():
    """The statements that run meanwhile."""
    found = []

    def listen(connection, cursor, statement, *_):
        found.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", listen)
    yield found
    sa.event.remove(sa.Engine, "before_cursor_execute", listen)


def test_one_statement_reads_a_small_table(propose, read):
    propose(pages=pages(), books=pages(count=301))
    assert sum("FROM pages" in one for one in read) == 1
    assert sum("FROM books" in one for one in read) > 1


def test_an_answer_reads_the_database_only_where_it_asks_what_was_not_asked_before(propose, read):
    propose(pages=pages(), books=pages(count=301))
    url = propose.url.render_as_string()
    made = scaffold(url)
    read.clear()
    assert scaffold(url, catalog=made.catalog).text == made.text
    assert read == []
    without = scaffold(url, catalog=made.catalog, answers={"pages": False}, uses={"books.body": "title"})
    assert [one.tables[0] for one in without.proposal.indexes] == ["books"]
    assert not any("FROM pages" in one for one in read)


def test_files_in_a_column_become_text_of_what_they_are_attached_to(propose):
    files = [b"%PDF-1.7\n\xe2\xe3 {n}", b"PK\x03\x04\x14\x00\x06\x00\x00\x00[Content_Types].xml", b"\x89PNG\r\n\x1a\n"]
    made = propose(
        ticket=pages(),
        attachment=many(
            12, ticket_id=itself, filename="{n}.pdf", data=lambda n: files[n % 4 % 3], internal_note=lambda n: files[0],
            kinds={"data": "BLOB", "internal_note": "BLOB"},
        ),
    )  # fmt: skip
    (part,) = made.index("ticket")["parts"]
    assert (part["table"], part["text"], part["format"]) == ("attachment", ["data"], {"data": "file"})
    assert made.coverage.share == 1


@pytest.mark.parametrize(("rows", "said"), [(20_000, "(20,000 rows,"), (20_001, "(more than 20,000 rows,")])
def test_a_question_says_that_a_large_table_has_more_rows_than_were_counted(propose, rows, said):
    made = propose(
        pages=many(60, title="Page {n} of the mill", body=TEXT), jobs=many(rows, name="Wheel of stone and oak {n}")
    )
    assert said in made.questions[0].sentence


def test_letters_of_rows_that_conditions_hide_are_not_reached(propose):
    made = propose(pages=pages("published INTEGER", [1, 0]))
    assert made.coverage.share < 0.1
    hidden = "of it are in rows that conditions hide, most in pages, by published: see its `where`"
    assert made.coverage.sentences(made.left_out)[0].endswith(hidden)


def test_whether_most_rows_of_a_table_may_be_shown_is_asked(propose):
    state = {"state": lambda n: "draft" if n < 10 else "published"}
    (asked,) = propose(page=many(12, title="Page {n} of it", body=TEXT, **state)).questions
    assert (asked.keys, asked.guess) == (("page.state",), False)
    assert asked.sentence.endswith("state is one of draft, published): show the rows that `state` hides?")
    written = scaffold(f"sqlite:///{propose.url.database}").text
    assert "remove the condition of `state` from `where` above" in written
    made = propose(answers={"page.state": True})
    assert (len(made.shown("page")), made.questions) == (12, [])
    assert (len(propose(answers={"page.state": False}).shown("page")), made.coverage.share) == (3, 1)


def test_the_rows_that_conditions_hide_are_counted_in_the_whole_table(propose):
    """Of 1,500 rows, 600 are hidden, and none of these is at the beginning, in the middle or at the end."""
    rows = many(1500, title="Page {n} of the mill", body=TEXT, hidden=lambda n: int(n == 3 or 140 < n < 740))
    assert 0.59 < propose(pages=rows).coverage.share < 0.61


@pytest.mark.parametrize(
    ("head", "title"), [("{n}. Das Rad der Mühle", "ueberschrift"), ("Das Rad der Mühle steht {n}.", None)]
)
def test_a_title_in_any_language_is_a_short_text_over_a_longer_one_that_ends_as_no_sentence_does(propose, head, title):
    made = propose(artikel=many(12, ueberschrift=head, inhalt=f"{PROSE}. {TEXT}"))
    assert made.index("artikel").get("title") == title


def test_sections_of_a_law_that_have_a_heading_beside_their_number_are_documents(propose):
    section = {"title": "§ {n}", "lawtext": f"{PROSE}, {TEXT}", "heading": "Theft of flour no. {n}"}
    made = propose(
        laws=many(50, name="Law of the mill {n}", url="https://mill.test/{n}.html"),
        paragraphs=many(100, **section, law_id=cycle(50)),
    )
    assert [one.tables[0] for one in made.indexes] == ["paragraphs"]
    assert made.index("paragraphs")["title"] == "heading"
    assert "law.name" in made.index("paragraphs")["text"]


def test_content_has_the_title_of_the_page_that_it_names_by_the_column_of_the_tree_of_pages(propose):
    """In the way of TYPO3, whose tables all have a `pid`."""
    made = propose(
        pages=many(80, "uid", pid=lambda n: n // 2, title="Page {n} of the mill"),
        content=many(40, "uid", pid=cycle(10), header="About {n}", bodytext=TEXT),
    )
    assert "Page 2 of the mill" in made.documents("content")["1"]


def test_few_rows_that_have_a_subject_say_nothing_of_what_others_are_called(propose):
    made = propose(
        document=many(20, state=itself), document_mail=many(2, "document_id", subject="Mail of {n} wheels"),
        document_text=many(20, "document_id", body=TEXT),
    )  # fmt: skip
    assert "title" not in made.index("document")


def test_few_things_that_people_wrote_are_found_though_others_refer_to_them(propose):

    def note(n):
        return f"The wheel of oak no. {n}, for bread" if n < 4 else ""

    times = {"created": "2024-01-01 10:0{n}:00", "note": note}
    made = propose(
        project=many(9, title="Project {n} of the mill", **times, kinds={"created": "DATETIME"}),
        meeting=many(40, project_id=cycle(9), title="Meeting {n} of the mill", body=TEXT),
    )
    assert {one.tables[0] for one in made.indexes} == {"project", "meeting"}


def test_a_document_names_whom_it_refers_to_by_a_first_and_a_last_name(propose):
    writers = "id INTEGER PRIMARY KEY, first_name TEXT, last_name TEXT", [(1, "Mara", "Ott"), (2, "Ezra", "Ilg")]
    columns = "id INTEGER PRIMARY KEY, title TEXT, text TEXT, writer INTEGER REFERENCES writers (id)"
    books = columns, [(n, f"Book {n}", TEXT.format(n=n), 1 + n % 2) for n in range(1, 13)]
    read = propose(writers=writers, books=books).documents("books")
    assert "Mara" in read["2"]
    assert "Ilg" in read["1"]


def test_tables_with_as_much_text_are_asked_about_in_the_order_of_their_names(propose):
    alike = {f"shelf_{letter}": many(40, name="Shelf {n} left") for letter in "hcagbfde"}
    made = propose(ticket=many(40, title="Printer {n}", body=TEXT), **alike)
    assert [one.tables for one in made.questions] == [tuple(sorted(alike))]


def test_what_stands_for_a_missing_text_in_two_columns_makes_them_no_copies(propose):
    none = "Summary not available."
    made = propose(
        papers=many(
            20,
            title="Paper {n} on mills",
            summary=lambda n: f"{PROSE} {n}" if n > 16 else none,
            review=lambda n: f"A reader says of it: {PROSE} {n}" if n > 16 else none,
        )
    )
    assert made.index("papers")["text"] == ["summary", "review"]
