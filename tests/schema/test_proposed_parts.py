"""What `init` proposes as parts and labels of a document, and what belongs to none."""

from hashlib import sha1

import pytest
import sqlalchemy as sa

from tests.schema.proposals import DAY, PROSE, TEXT, cycle, itself, many, names, pages, wheel_shop

ORDER_LINES = "product_id INTEGER, order_id INTEGER, pieces INTEGER, PRIMARY KEY (order_id, product_id)"
OF_GROUPS = "page_id INTEGER, {0} INTEGER, PRIMARY KEY (page_id, {0})".format
GROUPED = [(n, n % 3 + 1) for n in range(1, 13)]


def either(one, other):
    return lambda n: (other, one)[n % 2]


PARTS = {
    "entries with titles, of a thread without a text": (
        {"thread": many(12, kind=itself),
         "thread_entry": many(36, thread_id=cycle(12), title="Question no. {n}", body=TEXT)},
        {"thread": ["thread_entry"]}),
    "messages, of their conversation and not of whoever sent them": (
        {"messages": many(48, conversation_id=cycle(12), sender_type=either("Contact", "User"), sender_id=cycle(12),
                          content=TEXT),
         "conversations": many(12, contact_id=itself), "contacts": many(12, name="Kim Mill of {n}"),
         "users": many(12, name="Lee {n}", password="x")},
        {"conversations": ["messages"]}),
    "`rev`, which else stands for a version, begins all columns": (
        {"pages": pages(count=20), "remarks": many(40, "rev_id", rev_page=cycle(20), rev_body=TEXT)},
        {"pages": ["remarks"]}),
    "a number of posts names no post": (
        {"topics": many(20, "topic_id", topic_title="Topic {n} of the mill", topic_posts_approved=cycle(9)),
         "posts": many(60, topic_id=cycle(20), post_subject="Words {n} on it", post_text=TEXT)},
        {"topics": ["posts"]}),
    "model and res_id name a row of any table": (
        {"project_task": many(20, name="Task {n} of the mill", description=TEXT, type="task"),
         "crm_lead": many(20, name="Lead {n} of the mill", description=TEXT),
         "mail_message": many(40, model=either("crm.lead", "project.task"), res_id=cycle(20),
                              record_name="It {n}", body=TEXT)},
        {"project_task": ["mail_message"], "crm_lead": ["mail_message"]}),
    "a column without the word type, of which several values name tables": (
        {"pages": pages(count=20), "books": pages(count=20),
         "remarks": many(40, area=either("page", "book"), item_id=cycle(20), body=TEXT)},
        {"pages": ["remarks"], "books": ["remarks"]}),
    "two tables that number their rows, though one is called after the other": (
        {"wheel": many(12, "rowid", title="Wheel {n} of the mill", body=TEXT),
         "wheel_maker": many(12, "rowid", name="Maker {n} of the mill", description=TEXT)},
        {"wheel": []}),
    "a number that most rows have in common says whose they are, and is no key beside a type": (
        {"wheels": pages(), "pages": pages(), "stones": pages(),
         "rights": many(24, module=lambda n: ("wheel", "page", "stone")[n % 3], entity=1, remark=TEXT)},
        {"wheels": [], "pages": [], "stones": []}),
    "the same few names of many things, with values, are no settings": (
        {"package": pages(),
         "package_extra": many(48, package_id=cycle(12), key=lambda n: ("area", "time", "scale")[n % 3], value=TEXT)},
        {"package": ["package_extra"]}),
    "drafts in a table of their own": (
        {"tickets": pages(),
         "ticket_shared_draft_zooms": many(12, ticket_id=itself, new_article=f"{PROSE} perhaps {{n}}")},
        {"tickets": []}),
    "a link that names pages and machines by type and id, whose numbers are equal": (
        {"firms": pages(), "pages": pages(), "machines": many(12, name="Wheel no. {n}"),
         "followers": many(39, firm_id=cycle(12), record_type=either("machine", "page"), record_id=cycle(12))},
        {"firms": []}),
    "a key called like the last word of its own table": (
        {"visit": many(30, title="Visit {n} of the mill", report=TEXT),
         "visit_paper_source": many(9, "paper_source_id", name="Source {n} of the mill", description=TEXT)},
        {"visit": []}),
    "orders called by names that many of them have": (
        {"products": pages(), "orders": many(28, ship_name=lambda n: f"Mill no. {n % 12}", ordered_at=DAY),
         "order_lines": (ORDER_LINES, [(n % 12 + 1, n, n) for n in range(1, 29)])},
        {"products": []}),
    **{f"{column} by number, beside another table with types": (
        {"group_page": (OF_GROUPS(column), GROUPED), "page": pages(), "badge_types": names("Gold", "Silver", "Bronze")},
        {"page": []}) for column in ("permission_type", "data_type")},
}  # fmt: skip


@pytest.mark.parametrize(("tables", "wanted"), PARTS.values(), ids=PARTS)
def test_what_belongs_to_a_document_is_its_part_and_nothing_else(propose, tables, wanted):
    made = propose(**tables)
    assert {table: made.parts(table) for table in wanted} == wanted


def test_a_number_that_orders_rows_names_none_of_a_table_of_that_name(propose):
    sequences = dict.fromkeys(["sequences_of_numbers", "number_sequence"], names("Orders of the year", "Invoices"))
    assert "joins" not in propose(products=pages("sequence INTEGER", [1]), **sequences).index("products")


def test_numbers_that_two_tables_have_by_chance_make_no_relation(propose):
    made = propose(
        visit=many(30, "visit_id", visit_type=cycle(3), title="Visit {n} of the mill", report=TEXT),
        visit_type=many(3, "visit_type_id", name="Visit no. {n} at least", description=PROSE),
        gate=many(30, name="Gate no. {n} of the mill", description=TEXT),
    )
    visit = made.index("visit")
    assert "parts" not in visit
    assert visit["joins"]["visit_type_2"]["table"] == "visit_type"
    assert "joins" not in made.index("gate")


def test_of_two_tables_of_pages_the_one_called_like_the_remarks_has_them(propose):
    """Pages of a wiki without a name stay documents, though few and short, and though it might have a text one day."""
    made = propose(
        pages=pages("maker TEXT", ["ACME"], count=23),
        wikis=many(3, description=None),
        wiki_pages=many(25, title="Page {n} of the mill", body="Words about it {n}", wikiid=cycle(3)),
        wiki_versions=many(50, pageid=cycle(25), content="Words {n}"),
        wiki_remarks=many(50, pageid=cycle(25), body=TEXT),
    )
    assert (made.parts("pages"), made.parts("wiki_pages")) == ([], ["wiki_remarks"])


def test_a_label_comes_with_its_value_unless_the_link_is_deleted(propose):
    values = many(12, device_id=itself, field_id=cycle(2), value="v{n}", deleted=lambda n: int(n == 4))
    made = propose(devices=pages("maker TEXT", ["ACME"]), fields=names("Colour", "Voltage"), field_values=values)
    (part,) = made.index("devices")["parts"]
    assert part["text"] == "{fields.name}: {value}"
    assert part["where"] == "COALESCE(deleted, 0) = 0"


@pytest.mark.parametrize(("kind", "key"), [("itemtype", "items_id"), ("object_type", "object_id")])
def test_remarks_belong_to_what_their_type_and_id_say(propose, kind, key):
    said = {kind: lambda n: ["Page", "Machine"][n % 2], key: cycle(9), "content": f"{PROSE} in hour {{n}}"}
    made = propose(w_pages=pages(), w_remarks=many(40, **said), w_machines=many(11, name="Wheel {n}"))
    (part,) = made.index("w_pages")["parts"]
    assert (part["table"], part["on"], part["where"]) == ("w_remarks", key, f"{kind} = 'Page'")


def test_tags_belong_to_what_a_row_of_another_table_says_and_an_id(propose):
    """The number of a page is that of a machine, too: the type tells which is meant, by the name of its row."""
    types = "id INTEGER PRIMARY KEY, app_label TEXT, model TEXT", [(3, "mill", "page"), (5, "mill", "machine")]
    links = many(
        40, tag_id=cycle(2), content_type_id=lambda n: [3, 5][n % 2], object_id=cycle(9),
        creator=1, order=itself, tagger_id=None, tagger_type=None, created=DAY, changed=DAY,
        kinds={"created": "DATETIME", "changed": "DATETIME"},
    )  # fmt: skip
    tags = names("Water wheels", "Bakers at night")
    made = propose(mill_page=pages(), mill_machine=pages(), content_type=types, tags=tags, tag_links=links)
    for table, number in (("mill_page", 3), ("mill_machine", 5)):
        (part,) = made.index(table)["parts"]
        assert (part["table"], part["on"]) == ("tag_links", "object_id")
        assert (part["where"], part["text"]) == (f"content_type_id = {number}", "{tags.name}")


@pytest.mark.parametrize(("typed", "are_parts"), [(8, False), (12, True)])
def test_answers_of_which_only_some_belong_to_something_are_documents(propose, typed, are_parts):
    """Conversations have a text of their own, too: what is known of each. Yet they are no parts of a person."""
    said = {"custom_attributes": lambda n: f'{{"read before": "{PROSE} {n}"}}'}
    origin = {"origin_type": lambda n: "Conversation" if n <= typed else None, "origin_id": itself}
    made = propose(
        messages=many(48, conversation_id=cycle(12), content=TEXT),
        conversations=many(12, contact_id=cycle(6), **said, kinds={"custom_attributes": "JSON"}),
        contacts=many(6, name="Kim Mill of {n}", about=TEXT),
        captain_responses=many(12, question="What does wheel {n} need?", answer=TEXT, **origin),
    )
    assert sorted(made.parts("conversations")) == ["captain_responses"] * are_parts + ["messages"]
    if not are_parts:
        assert made.index("captain_responses")["title"] == "question"


def test_what_a_product_is_linked_to_has_its_text_beside_it(propose):
    key = "PRIMARY KEY (product_id, attribute_id, language_id)"
    attributes = {
        "attribute_description": (
            "attribute_id INT, language_id INT, name TEXT, PRIMARY KEY (attribute_id, language_id)",
            [(n, k, f"Size {n} {k}") for n in range(1, 4) for k in (1, 2)]),
        "attribute": many(3, "attribute_id", sort_order=itself),
        "product_attribute": (
            f"product_id INT, attribute_id INT, language_id INT, text TEXT, {key}",
            [(n, n % 3 + 1, k, ("Birch", "Larch")[n % 2]) for n in range(1, 25) for k in (1, 2)]),
    }  # fmt: skip
    made = propose(**wheel_shop(**attributes))
    (part,) = [one for one in made.index("product_description")["parts"] if one["table"] == "product_attribute"]
    assert part["text"] == "{attribute_description.name}: {text}"
    assert part["on"] == {
        "product_id": "product_id", "attribute_description.language_id": "language_id", "language_id": "language_id"
    }  # fmt: skip


def test_what_was_said_when_an_order_changed_is_a_part_of_it_if_people_were_told(propose):
    history = many(48, order_id=cycle(12), notify=lambda n: int(n % 5 > 0), comment=TEXT)
    made = propose(order_history=history, orders=many(12, name="Wheel of {n}", comment=TEXT))
    (part,) = made.index("orders")["parts"]
    assert (part["table"], part["where"]) == ("order_history", "notify = 1")


def test_a_key_that_happens_to_be_that_of_another_table_is_none_if_another_column_names_its_rows(propose):
    above = {"parent_id": "INT REFERENCES sales_order (entity_id)"}
    history = many(24, "entity_id", parent_id=lambda n: 25 - n, comment=f"{PROSE} of {{n}}", kinds=above)
    orders = many(24, "entity_id", title="Order of wheel {n}", body=TEXT)
    (part,) = propose(sales_order=orders, sales_order_status_history=history).index("sales_order")["parts"]
    assert part["on"] == "parent_id"


def test_a_shop_to_which_everything_refers_has_no_parts_and_the_details_of_a_review_are_parts_of_it(propose):
    """In the way of Magento."""
    store = {"store_id": cycle(2)}
    detail = {"review_id": itself, **store, "title": "Fine wheel {n}", "detail": TEXT}
    made = propose(
        store=names("English", "Deutsch", key="store_id"),
        review=many(50, "review_id", created_at=DAY, kinds={"created_at": "TIMESTAMP"}),
        review_detail=many(50, "detail_id", **detail),
        **{f"thing_{n}": many(12, **store, amount=itself) for n in range(9)},
    )
    (part,) = made.index("review")["parts"]
    assert part["text"] == ["title", "detail"]
    assert "store" not in [one.tables[0] for one in made.indexes]


def test_the_project_of_a_link_is_no_label_of_what_names_its_project_itself(propose):
    """In the way of GitLab, where each table repeats the project."""
    links = {"issue_id": cycle(24), "project_id": lambda n: (n % 24 + 1) % 3 + 1, "label_id": cycle(4)}
    made = propose(
        projects=many(3, name="Mill {n} at the weir"),
        labels=many(4, title="urgent {n}"),
        issues=many(24, project_id=cycle(3), title="Issue {n} of the mill", description=TEXT),
        label_links=many(48, **links),
    )
    assert [part["name"] for part in made.index("issues")["parts"]] == ["labels"]


def test_titles_may_be_numbers_and_places_in_commits_are_no_text(propose):
    place = '{{"head_sha": "{}", "new_path": "src/mill.c", "new_line": 14}}'
    position = {"position": lambda n: place.format(sha1(str(n).encode()).hexdigest())}
    made = propose(
        milestones=many(24, title=lambda n: f"24.{n}" if n % 3 else f"Freeze {n}", description=TEXT),
        notes=many(24, milestone_id=itself, note=f"{PROSE} of {{n}}", **position),
    )
    settings = made.index("milestones")
    assert (settings["title"], settings["parts"][0]["text"]) == ("title", ["note"])


def test_items_of_any_kind_are_no_rows_of_a_table_of_items_and_long_documents_are_no_labels(propose):
    """In the way of GLPI."""
    long = f"{PROSE} {PROSE} {PROSE}{{n}}"
    made = propose(
        machines=many(5, name="Mill wheel {n}", content=TEXT),
        changes=many(12, name="Change {n} of the mill", content=long),
        problems=many(12, name="Problem {n} of the mill", content=TEXT),
        changes_items=many(12, change_id=itself, itemtype="Machine", items_id=cycle(5)),
        problems_items=many(12, problem_id=itself, itemtype="Machine", items_id=itself),
    )
    assert "changes" not in str(made.index("problems"))  # most of its machines are gone
    assert "parts" not in made.index("machines")


@pytest.mark.parametrize(("gone", "related"), [(6, True), (20, False)])
def test_a_few_rows_that_name_what_is_gone_are_no_doubt(propose, gone, related):
    remarks = many(40, page_id=lambda n: n % 20 + 1 if n > gone else 900 + n, body=TEXT)
    assert (propose(pages=pages(count=20), remarks=remarks).parts("pages") == ["remarks"]) is related


def test_discussions_are_documents_though_they_belong_to_a_forum_of_a_course(propose):
    made = propose(
        course=many(5, fullname="Course {n} of milling", summary=TEXT),
        forum=many(6, course=cycle(5), name="Announcements", intro=TEXT),
        forum_discussions=many(30, course=cycle(5), forum=cycle(6), name="Question {n} on it"),
        forum_posts=many(60, discussion=cycle(30), message=TEXT),
    )
    assert made.parts("forum_discussions") == ["forum_posts"]
    assert made.parts("course") == []
    assert made.index("course")["title"] == "fullname"


def test_a_column_called_after_two_words_names_no_row_of_the_first_alone(propose):
    made = propose(
        ticket_article_types=names("mail", "web", "phone"),
        tickets=many(20, title="Ticket {n} of it", create_article_type_id=cycle(3)),
        ticket_articles=many(40, ticket_id=cycle(20), subject="Words {n} on it", body=TEXT, type_id=cycle(3)),
    )
    assert made.parts("tickets") == ["ticket_articles"]
    assert [one["table"] for one in made.index("tickets")["joins"].values()] == ["ticket_article_types"]


def test_a_foreign_key_that_names_a_view_means_the_table_with_its_key(propose):
    mails = many(
        40, subject="Words of the mill {n} on it", sender=cycle(12), kinds={"sender": "INT REFERENCES staff (eid)"}
    )
    tables = {"staff_base": many(12, "eid", name="Miller Number {n}", title="Master"), "mail": mails}
    assert "joins" not in propose(**tables, add=["mail"]).index("mail")
    with sa.create_engine(propose.url).begin() as connection:
        connection.exec_driver_sql("CREATE VIEW staff AS SELECT * FROM staff_base")
    made = propose(add=["mail"])
    assert made.index("mail")["text"] == ["sender_2.name"]


def test_of_several_histories_a_revision_is_of_the_one_that_names_the_row(propose):
    """Drupal Commerce: each kind of thing has a table of revisions, all with the same key, and small numbers."""
    revisions = {
        f"{name}_revision": many(40, "revision_id", **{f"{name}_id": itself}, log=f"{PROSE} of {name} {{n}}")
        for name in ("parcel", "wheel")
    }
    made = propose(wheel=many(30, "wheel_id", title="Wheel {n}", revision_id=itself), **revisions)
    assert "parcel_revision" not in str(made.index("wheel"))


def test_tables_of_one_field_each_are_the_title_and_the_parts_of_what_they_belong_to(propose):
    """In the way of ProcessWire: the builders of a mill are pages, too, and so is the town in which it is."""
    titles = {n: f"Mill no. {n}" for n in range(301, 325)} | {n: f"Builder Kim {n}" for n in range(401, 407)}
    titles |= {501: "Town on the weir"}
    made = propose(
        pages=("id INTEGER PRIMARY KEY, parent_id INTEGER, name TEXT",
               [(n, 501 if n < 400 else 0, f"page-no-{n}") for n in titles]),
        field_title=("pages_id INTEGER PRIMARY KEY, data TEXT", [*titles.items()]),
        field_body=("pages_id INTEGER PRIMARY KEY, data TEXT", [(n, f"{PROSE} {n}") for n in range(301, 325)]),
        field_builders=("pages_id INTEGER, data INTEGER, sort INTEGER, PRIMARY KEY (pages_id, sort)",
                        [(n, 401 + n % 6, 0) for n in range(301, 325)]),
    )  # fmt: skip
    (one,) = made.indexes
    text = made.documents("pages")["310"]
    assert (one.tables[0], one.settings["title"]) == ("pages", "field_title.data")
    assert all(words in text for words in (f"{PROSE} 310", "builders: Builder Kim 405", "Town on the weir"))


def test_notes_that_name_one_of_several_things_are_parts_of_each(propose):
    """In the way of ArchivesSpace: of several foreign keys one has a value."""
    either = {"box_id": lambda n: n if n <= 20 else None, "letter_id": lambda n: n - 20 if n > 20 else None}
    kinds = {"box_id": "INT REFERENCES box (id)", "letter_id": "INT REFERENCES letter (id)"}
    made = propose(
        box=many(20, title="Box {n} of the mill", hidden=lambda n: int(n == 7)),
        letter=many(20, title="Letter {n} of the mill"),
        note=many(40, **either, note=TEXT, kinds=kinds),
        extent=many(40, **either, physical_details="{n} leaves of paper", number=itself, kinds=kinds),
    )
    assert [one.tables[0] for one in made.indexes] == ["box", "letter"]
    assert [{*made.parts(table)} for table in ("box", "letter")] == [{"extent", "note"}] * 2
    note = [one for one in made.index("letter")["parts"] if one["table"] == "note"]
    assert "where" not in note[0]  # no note of a letter is in a hidden box
    assert f"{PROSE} 29" in made.documents("letter")["9"]


def test_rows_of_keys_and_dates_say_with_names_what_happened_to_a_thing(propose):
    """In the way of Open Hospital: an admission has no text, and what patients have is called by its description."""
    when = dict.fromkeys(("admitted", "discharged", "created"), DAY)
    counts = dict.fromkeys(("weight", "bed", "days", "visits"), itself)
    made = propose(
        patients=many(60, name="Kim Miller {n}", town="Weir", address="Mill lane {n}"),
        diseases=many(30, disease_desc="Cough of kind {n}"),
        wards=names("Children at night", "Surgery"),
        admissions=many(90, patient_id=cycle(60), disease_id=cycle(30), ward_id=cycle(2), **when, **counts, note=None),
    )
    text = made.documents("patients")["8"]
    assert "Cough of kind 8" in text
    assert "Surgery" in text
    assert "admissions" not in [one.tables[0] for one in made.indexes]


def test_captions_with_short_values_that_name_a_thing_are_parts_of_it(propose):
    """In the way of litemall: the attributes of goods have neither a title nor a sentence."""
    made = propose(
        goods=pages(),
        goods_attribute=many(
            60, goods_id=cycle(12), attribute=lambda n: ("材质", "件数")[n % 2], value=lambda n: f"北美白橡{n % 15}",
            add_time=DAY, update_time=DAY, deleted=lambda n: int(n == 20),
        ),
    )  # fmt: skip
    text = made.documents("goods")
    assert "件数: 北美白橡6" in text["10"]
    assert "北美白橡5" not in text["9"]  # deleted
    assert [one.tables[0] for one in made.indexes] == ["goods"]


def test_who_took_part_in_a_work_is_named_with_the_role_and_who_borrowed_it_is_not(propose):
    cast = many(60, film_id=cycle(12), person_id=itself, role=lambda n: ("actor", "writer")[n % 2], created=DAY)
    loans = many(60, film_id=cycle(12), member_id=itself, begin_date=DAY, end_date=DAY)
    made = propose(
        film=pages(),
        person=many(60, full_name="Kim Miller {n}", birth_date="1931-03-14"),
        film_person=cast,
        member=many(60, full_name="Lee Baker {n}"),
        loan=loans,
        customer=many(60, full_name="Jo Smith {n}", email="jo{n}@example.org"),
        film_customer=many(60, film_id=cycle(12), customer_id=itself),
    )
    text = made.documents("film")["9"]
    assert "Kim Miller 20: actor" in text
    assert "Lee Baker" not in text
    assert "Jo Smith" not in text


def test_a_work_shows_the_names_of_those_that_rows_of_keys_link_with_it_in_any_language(propose):
    """In the way of a library: `auteur` has names of one word each, and neither is called as in English."""
    made = propose(
        livre=many(12, "id_livre", titre="Le moulin no. {n}", resume=TEXT),
        auteur=many(12, "id_auteur", prenom=lambda n: f"{chr(64 + n)}line", nom=lambda n: f"{chr(64 + n)}ussi"),
        livre_auteur=(
            "id_livre INTEGER, id_auteur INTEGER, PRIMARY KEY (id_livre, id_auteur)",
            [(n, 13 - n) for n in range(1, 13)],
        ),
        lecteur=many(12, "id_lecteur", prenom=lambda n: f"{chr(64 + n)}laude", nom=lambda n: f"{chr(64 + n)}upond"),
        emprunt=many(12, "id_emprunt", id_livre=itself, id_lecteur=itself, date_debut=DAY, date_fin=DAY),
    )
    assert "Iline Iussi" in made.documents("livre")["4"]
    assert "upond" not in made.documents("livre")["4"]  # who borrowed it


def test_a_match_is_told_in_the_documents_of_both_teams(propose):
    scores = dict.fromkeys(("round", "home_goals", "away_goals", "minutes", "viewers", "yellow_cards"), itself)
    made = propose(
        teams=many(12, name="Wheel no. {n} of town", history=TEXT),
        matches=many(60, home_team_id=cycle(12), away_team_id=lambda n: (n + 4) % 12 + 1, **scores),
    )
    told = made.documents("teams")["2"]
    assert all(f"Wheel no. {n} of town" in told for n in (6, 10))


def test_values_of_fields_with_numbers_of_their_own_are_those_of_each_kind_of_thing(propose):
    """In the way of DSpace: one table has the keys of all things, and another what each of them is called."""

    def said(n):
        return " ".join("".join(filter(str.isalpha, sha1(bytes([n, word])).hexdigest())) for word in range(9))

    things = {n: "item" if n <= 12 else "collection" if n <= 18 else "file" for n in range(1, 49)}
    fields = [(1, "title", None), (2, "title", "alternative"), (3, "description", "abstract"), (4, "history", None)]
    values = (
        [(n, 1, f"Mill no. {n}") for n in things]
        + [(n, 2, f"{n}.txt") for n in things if n > 18]
        + [(n, 3, said(n)) for n in things if n <= 18]
    )
    values += [
        (n, 4, f"Submitted by a clerk of the office on day {n}, with {n} files, to the keeper of the mills")
        for n in range(1, 13)
    ]
    kinds = {kind: [n for n in things if things[n] == kind] for kind in ("item", "collection", "file")}
    sums = [(n, sha1(bytes([n])).hexdigest()) for n in kinds["file"]]
    key, of = "id INTEGER PRIMARY KEY REFERENCES thing (id)", "INTEGER REFERENCES"
    made = propose(
        thing=("id INTEGER PRIMARY KEY", [(n,) for n in things]),
        item=(f"{key}, shelf INTEGER", [(n, n) for n in kinds["item"]]),
        collection=(key, [(n,) for n in kinds["collection"]]),
        file=(f"{key}, checksum TEXT", sums),
        field=("field_id INTEGER PRIMARY KEY, element TEXT, qualifier TEXT", fields),
        field_value=(
            f"id INTEGER PRIMARY KEY, field_id {of} field (field_id), value TEXT, thing_id {of} thing (id)",
            [(place, field, text, n) for place, (n, field, text) in enumerate(sorted(values), 1)]),
    )  # fmt: skip
    assert {one.tables[0] for one in made.indexes} == {"item", "collection"}
    text = made.documents("item")["3"]
    assert "Mill no. 3" in text
    assert f"description abstract: {said(3)}" in text
    assert "Submitted by" not in text


def test_a_document_names_who_wrote_it_with_an_account_and_a_thing_with_a_long_text(propose):
    people = {"login": "kim{n}", "first_name": lambda n: f"Kim{n}", "last_name": "Miller", "password": "x"}
    made = propose(
        users=many(12, **people),
        makers=many(12, name="Makers of wheel {n}", about=f"{TEXT} {PROSE}"),
        wheels=many(24, author_id=cycle(12), maker_id=cycle(12), title="Wheel {n} of the mill", body=TEXT),
    )
    wheels = made.index("wheels")
    assert wheels["text"] == ["body", "author.first_name", "author.last_name"]
    assert wheels["payload"][:3] == ["maker.name", "author.first_name", "author.last_name"]


def test_a_film_says_who_played_whom(propose):
    made = propose(
        film=many(12, title="Film {n} of the mill", plot=TEXT),
        actor=many(30, name="Kim Mill {n}"),
        credit=many(60, film_id=cycle(12), actor_id=cycle(30), character="Miller {n}"),
    )
    assert made.parts("film") == ["credit"]
    assert "Kim Mill 14: Miller 13" in made.documents("film")["2"]


def test_a_document_has_its_values_in_other_tables_and_the_names_of_persons_with_a_biography(propose):
    genres, states = ("Western", "Drama", "Film noir"), ("open", "closed")
    made = propose(
        film=many(24, title="Film {n} of the mill", plot=f"{TEXT} {PROSE}"),
        person=many(12, name="Kim Mill {n}", biography=f"{TEXT} {PROSE}"),
        credit=many(48, film_id=cycle(24), person_id=cycle(12), job=lambda n: ("Director", "Writer")[n % 2]),
        film_genre=("film_id INTEGER, genre TEXT, PRIMARY KEY (film_id, genre)",
                    [(n, genres[(n + more) % 3]) for n in range(1, 25) for more in (0, 1)]),
        film_history=many(48, film_id=cycle(24), state=lambda n: states[n % 2], at=DAY),
        person_film_code=many(48, film_id=cycle(24), handler=lambda n: f"load_{'xyz'[n % 3]}_page"),
    )  # fmt: skip
    assert made.parts("film") == ["credit", "film_genre"]
    text = made.documents("film")["2"]
    assert all(one in text for one in ("Kim Mill 2: Writer", "Film noir", "Western"))
    assert "Film 2" not in "".join(made.documents("person").values())


def test_an_order_names_who_ordered_and_what_its_lines_name(propose):
    lines = "order_id INT, place INT, product_id INT, pieces INT, price INT, discount INT, tax INT, total INT"
    login = {"first_name": "Kim", "last_name": "Miller {n}", "login": "kim{n}", "password": "x{n}"}
    made = propose(
        orders=many(20, code="A{n}7", customer_id=cycle(6), created=DAY, kinds={"created": "DATETIME"}),
        order_lines=(f"{lines}, PRIMARY KEY (order_id, place)",
                     [(n, k, (n + k) % 12 + 1, k, 3, 0, 1, 4) for n in range(1, 21) for k in (1, 2)]),
        products=many(12, name="Wheel of oak {n}", about=TEXT),
        customers=many(6, **login),
        add=["orders"],
    )  # fmt: skip
    text = made.documents("orders")["3"]
    assert all(name in text for name in ("Miller 4", "Wheel of oak 5", "Wheel of oak 6"))


def test_a_document_names_up_to_eight_others_and_a_row_of_its_own_table_that_may_be_shown(propose):
    kinds = [f"kind{k}" for k in range(7)]
    made = propose(
        **{name: many(12, name=f"{name} no. {{n}}") for name in kinds},
        region=many(12, name="Region {n}", body=TEXT, parent_id=cycle(3), is_public=lambda n: int(n != 2),
                    **{f"{name}_id": cycle(12) for name in kinds}),
    )  # fmt: skip
    region = made.index("region")
    assert {f"{name}.name" for name in kinds} <= {*region["text"]}
    assert region["payload"][0] == "parent.name"
    assert "parent.name" not in region["text"]
    assert region["joins"]["parent"] == {"table": "region", "on": "parent_id", "where": "is_public = 1"}


def test_names_that_belong_to_one_document_are_in_it(propose):
    bookmark = {"title": "Way to the weir {n}", "added": lambda n: f"2024-01-{n:02} 10:00:00"}
    made = propose(
        places=many(24, title="Place {n} of the mill", description=TEXT),
        bookmarks=many(20, place_id=itself, **bookmark, kinds={"added": "DATETIME"}),
    )
    assert "Way to the weir 7" in made.documents("places")["7"]
