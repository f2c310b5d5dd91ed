"""The rule of who may see a row, as a table of cases, and how many words all lists have."""

import pytest

from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.candidates import Seen, SeenValue
from rag_index.first_run.schema.rule import decide
from rag_index.first_run.schema.words import read_direction, words


def seen(name, counts, kind="value", noun="article", **more):
    """Return what the rule looks at: a column with spoken values and their rows."""
    values = [SeenValue(value_of(said, kind), said, rows) for said, rows in counts.items()]
    values.sort(key=lambda one: -one.rows)
    return Seen(words(name), tuple(values), kind, words(noun), sum(counts.values()), **more)


def value_of(said, kind):
    """Return a value as the settings have it."""
    return "" if said == "empty" and kind != "time" else said


def shown(name, counts, kind="value", noun="article", **more):
    """Return the result, and which values are shown."""
    verdict = decide(seen(name, counts, kind, noun, **more))
    return verdict.result, " ".join(
        said for said in counts if value_of(said, kind) in verdict.shown
    )


HIDING = """
    non_public not_visible is_not_public unpublished invisible nonpublic hidden isPrivate private is_confidential
    internal deleted is_draft spam notpublic restricted members_only staff_only login_required is_not_visible_to_user
    hide_from_search deleted_flag removed trashed is_secret not_approved is_invalid
""".split()
SHOWING = """
    public is_published visible not_hidden is_not_private not_deleted undeleted visible_to_customer
    show_in_public is_in_public publicly_visible approved publishable
    unhidden is_not_confidential is_valid is_visible_for_student
""".split()


@pytest.mark.parametrize("name", [*HIDING, *SHOWING])
@pytest.mark.parametrize("yes", [2, 20, 38])
def test_a_yes_and_no_with_a_direction_is_understood_however_common_it_is(name, yes):
    result = shown(name, {"yes": yes, "no": 40 - yes}, "flag")
    assert result == ("understood", "no" if name in HIDING else "yes")


@pytest.mark.parametrize(
    ("name", "counts", "expected"),
    [
        # no value is hidden where it says "not yet", elsewhere shown
        ("is_approved", {"yes": 30, "no": 5, "empty": 5}, "yes"),
        ("is_hidden", {"no": 30, "yes": 5, "empty": 5}, "no empty"),
        ("visible", {"yes": 30, "no": 5, "empty": 5}, "yes empty"),
    ],
)
def test_no_value_is_hidden_where_it_says_not_yet(name, counts, expected):
    assert shown(name, counts, "flag") == ("understood", expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *[
            ("deleted_at", "empty"),
            ("hidden_on", "empty"),
            ("published_at", "past"),
            ("approved_at", "past"),
        ],
        *[("publish_date", "past"), ("hidden_until", "empty past")],
        *[
            ("expires_at", "empty future"),
            ("valid_until", "empty future"),
            ("valid_from", "empty past"),
        ],
        *[("visible_to", "empty future"), ("unpublished_at", "empty")],
    ],
)
def test_a_time_with_a_direction_is_understood_as_empty_past_and_future(name, expected):
    assert shown(name, {"empty": 20, "past": 20, "future": 20}, "time") == ("understood", expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # nothing is planned for most rows
        ("publish_at", ("understood", "empty past")),
        # not yet, though that hides most rows: a person is asked
        ("published_at", ("asked", "past")),
        ("approved_at", ("asked", "past")),
        ("approval_date", ("asked", "past")),
        ("publication_date", ("asked", "past")),
    ],
)
def test_a_time_of_publication_that_few_rows_have(name, expected):
    assert shown(name, {"empty": 90, "past": 5, "future": 5}, "time") == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("deletion_date", "empty"),
        ("removal_time", "empty"),
        ("suspension_date", "empty"),
        ("expiry_date", "empty future"),
        ("expiration", "empty future"),
        ("embargo_until", "empty past"),
        ("embargo_end_date", "empty past"),
    ],
)
def test_nouns_say_what_their_verbs_say_of_a_time(name, expected):
    counts = {"empty": 20, "past": 20, "future": 20}
    assert shown(name, counts, "time") == ("understood", expected)


@pytest.mark.parametrize(
    ("name", "no", "expected"),
    [
        # one more word, which may be a place where the row is shown
        ("visible_in_portal", 12, ("asked", "yes")),
        ("is_in_public_catalogue", 12, ("asked", "yes")),
        ("portal_visible", 12, ("asked", "yes")),
        # so many rows wait for an answer before they are hidden
        ("visible_in_portal", 30, ("asked", "yes no")),
        # what is shown or hidden is another thing
        ("hide_sidebar", 12, ("facet", "yes no")),
        ("title_visible", 12, ("facet", "yes no")),
    ],
)
def test_another_word_beside_a_direction_is_asked_with_what_it_says(name, no, expected):
    counts = {"yes": 40 - no, "no": no}
    assert shown(name, counts, "flag", about=frozenset({"title"})) == expected


def test_progress_in_half_of_the_values_of_a_state_is_progress_and_is_decided():
    counts = {"waiting": 10, "done": 20, "at work": 10, "being painted": 5}
    verdict = decide(seen("state", counts, noun="repair"))
    assert (verdict.result, verdict.is_decision) == ("harmless", True)
    assert shown("state", {"live": 30, "parked": 10, "done": 2})[0] == "asked"
    assert not decide(seen("language", {"en": 30, "de": 9})).is_decision


@pytest.mark.parametrize(
    ("noun", "name", "counts", "expected"),
    [
        # a value with a hidden word, whatever the column is called and however common it is
        ("article", "kind", {"public reply": 30, "internal note": 20}, "understood: public reply"),
        ("comment", "type", {"internal": 40, "reply": 10}, "understood: reply"),
        ("article", "status", {"draft": 40, "published": 60}, "understood: published"),
        (
            "article",
            "class",
            {"PUBLIC": 40, "PRIVATE": 30, "CONFIDENTIAL": 30},
            "understood: PUBLIC",
        ),
        ("article", "place", {"left": 30, "right": 20, "staff_only": 10}, "understood: left right"),
        ("article", "folder", {"Inbox": 30, "Trash": 20, "Spam": 10}, "understood: Inbox"),
        ("page", "status", {"published": 30, "unpublished": 30}, "understood: published"),
        # no value among published ones is not published yet
        ("article", "status", {"published": 30, "empty": 10}, "understood: published"),
        # what is neither published nor hidden by a word waits for an answer
        (
            "article",
            "status",
            {"published": 60, "draft": 10, "in review": 20, "scheduled": 10},
            "asked: published",
        ),
        ("article", "status", {"published": 60, "pending": 10}, "understood: published"),
        # on what people write, what a moderator holds is hidden; on what people work on it is a
        # state
        ("comment", "state", {"held": 10, "accepted": 90}, "understood: accepted"),
        ("review", "status", {"pending": 60, "approved": 40}, "understood: approved"),
        ("post", "status", {"rejected": 10, "ok": 90}, "understood: ok"),
        (
            "ticket",
            "status",
            {"pending": 10, "open": 30, "waiting for customer": 20},
            "harmless: all",
        ),
        ("order", "status", {"approved": 50, "pending": 30, "rejected": 20}, "understood: all"),
        ("event", "status", {"approved": 40, "pending": 15, "rejected": 5}, "understood: approved"),
        ("order_review", "status", {"ok": 40, "pending": 15}, "understood: ok"),
        # a name with a direction, and values that are more than yes and no
        ("comment", "comment_approved", {"1": 61, "0": 18, "spam": 9, "trash": 2}, "understood: 1"),
        ("comment", "deleted", {"X": 20, "empty": 40}, "understood: empty"),
        ("comment", "is_private", {"-1": 20, "0": 40}, "understood: 0"),
        ("comment", "hidden", {"on": 20, "off": 40}, "understood: off"),
        ("article", "published", {"0": 20, "1": 30, "2": 10}, "asked: 1"),
        ("article", "deleted", {"0": 30, "1": 20, "2": 10}, "asked: 0"),
        # more words, and lists
        (
            "document",
            "classification",
            {"General": 40, "Strictly confidential": 20},
            "understood: General",
        ),
        ("post", "status", {"normal": 40, "deleted by moderator": 20}, "understood: normal"),
        ("board", "kind", {"Open group": 40, "Private group": 20}, "understood: Open group"),
        ("post", "flags", {"none": 40, "hidden,locked": 20}, "understood: none"),
        ("article", "labels", {'["news"]': 40, '["news", "internal"]': 9}, 'understood: ["news"]'),
        ("article", "kind", {"Circular": 40, "Internal bulletin": 20}, "asked: Circular"),
        ("article", "topic", {"Public health": 40, "Surgery": 20}, "facet: all"),
        ("article", "display", {"show": 40, "hide": 20}, "understood: show"),
        ("article", "change", {"delete": 40}, "facet: all"),
        # a noun that is no yes and no
        ("article", "publication", {"Nature": 40, "Science": 20}, "facet: all"),
        ("article", "removed", {"empty": 40, "by its author": 20}, "asked: empty"),
        ("article", "visible", {"ja": 40, "nein": 20}, "asked: ja"),
        ("article", "sensitivity", {"Low": 40, "High": 20}, "asked: Low"),
        ("article", "confidentiality", {"B": 40, "A": 20}, "asked: B"),
        ("article", "access_category", {"everyone": 40, "board": 20}, "asked: everyone"),
        # what two persons say to each other
        ("room", "kind", {"direct": 10, "group": 30}, "understood: group"),
        # another word beside the hidden one says something else
        ("product", "product_type", {"draft beer": 30, "bottle": 30}, "harmless: all"),
        ("article", "department", {"Internal medicine": 30, "Surgery": 30}, "asked: Surgery"),
        ("log", "kind", {"delete": 30, "login": 30}, "facet: all"),
        # how far a row is
        ("lead", "stage", {"new": 30, "in progress": 30, "done": 3, "on hold": 1}, "harmless: all"),
        # short names that say something else
        ("article", "language", {"en": 90, "de": 10}, "harmless: all"),
        ("article", "priority", {"1": 90, "9": 10}, "harmless: all"),
        ("article", "color", {"red": 90, "blue": 10}, "facet: all"),
        ("article", "access_type", {"a": 90, "b": 10}, "asked: a"),
        # asked: those that make up 80%, of at least three rows
        ("article", "status", {"a": 60, "b": 25, "c": 10, "d": 5}, "asked: a b"),
        ("article", "status", {"a": 30, "b": 30, "c": 30, "d": 30, "e": 30}, "asked: a b c d e"),
        ("article", "state", {"1": 16, "2": 2, "3": 2}, "asked: 1"),
        ("article", "moderation", {"x": 90, "y": 9, "empty": 5}, "asked: x empty"),
        ("article", "approval", {"x": 60, "empty": 40}, "understood: x"),
        # privacy: the most common alone
        ("article", "visibility", {"X": 50, "Y": 45}, "asked: X"),
        ("article", "access", {"low": 50, "high": 45}, "asked: low"),
        ("channel", "type", {"O": 50, "P": 40, "D": 30}, "understood: O"),
        ("article", "fe_group", {"empty": 90, "2": 10}, "asked: empty"),
    ],
)
def test_values_say_who_may_see_a_row_as_whole_words(noun, name, counts, expected):
    result, values = shown(name, counts, noun=noun)
    assert (
        f"{result}: {'all' if values == ' '.join(counts) and 'all' in expected else values}"
        == expected
    )


@pytest.mark.parametrize(
    ("noun", "name", "yes", "expected"),
    [
        ("article", "locked", 6, ("asked", "no")),
        ("article", "locked", 8, ("facet", "yes no")),
        # what is out of use is hidden, unless it is most
        ("article", "is_active", 28, ("understood", "yes")),
        ("article", "inactive", 12, ("understood", "no")),
        ("article", "disabled", 12, ("understood", "no")),
        ("article", "not_enabled", 12, ("understood", "no")),
        ("article", "is_active", 18, ("facet", "yes no")),
        # older versions, however many they are
        ("article", "is_current", 5, ("understood", "yes")),
        ("article", "status", 28, ("understood", "yes")),
        ("ticket", "status", 28, ("asked", "yes no")),
        ("article", "internal_only", 10, ("understood", "no")),
        # in tables of work, a flag says how far a row is
        ("ticket", "on_hold", 6, ("harmless", "yes no")),
        ("ticket", "is_closed", 2, ("harmless", "yes no")),
        ("article", "on_hold", 6, ("asked", "no")),
        ("comment", "on_hold", 6, ("understood", "no")),
        # another thing that the database knows
        ("article", "comments_enabled", 6, ("facet", "yes no")),
        ("article", "hide_email", 6, ("facet", "yes no")),
        ("article", "has_chapters", 6, ("facet", "yes no")),
    ],
)
def test_a_yes_that_few_rows_have_is_asked_unless_something_explains_it(noun, name, yes, expected):
    found = shown(
        name, {"yes": yes, "no": 40 - yes}, "flag", noun, about=frozenset({"comment", "title"})
    )
    assert found == expected


def test_a_yes_in_few_rows_with_no_value_in_the_others_is_asked():
    assert shown("sealed", {"empty": 38, "yes": 2}, "flag") == ("asked", "empty")
    assert shown("sealed", {"empty": 95, "past": 5, "future": 0}, "time") == ("asked", "empty")
    assert shown("last_made", {"empty": 95, "past": 5, "future": 0}, "time") == (
        "facet",
        "empty past future",
    )


def test_a_ban_is_understood_on_persons_alone():
    assert shown("is_banned", {"yes": 10, "no": 10}, "flag", "user", is_people=True) == (
        "understood",
        "no",
    )
    assert shown("state", {"suspended": 10, "fine": 10}, noun="user", is_people=True) == (
        "understood",
        "fine",
    )
    assert shown("is_blocked", {"yes": 10, "no": 10}, "flag", "ticket") == ("facet", "yes no")
    # beside `silenced_till`
    times, more = {"empty": 28, "future": 2, "past": 0}, {"about": frozenset({"till", "silence"})}
    assert shown("suspended_till", times, "time", "user", is_people=True, **more) == (
        "understood",
        "empty past",
    )


def test_a_column_that_no_row_uses_hides_none():
    times = {"empty": 40, "past": 0, "future": 0}
    assert shown("published_at", times, "time") == ("understood", "empty past")
    assert shown("is_approved", {"empty": 40, "yes": 0, "no": 0}, "flag") == (
        "understood",
        "empty yes",
    )


def test_what_is_moderated_is_hidden_before_whatever_it_is_called():
    assert shown("moderated", {"yes": 20, "no": 20}, "flag", "idea") == ("understood", "yes")
    # a command for the comments of a page
    assert shown("moderate", {"yes": 2, "no": 98}, "flag", "page") == ("asked", "no")


def test_shares_prove_nothing_in_a_small_table_and_hidden_words_hide():
    assert shown("status", {"a": 12, "b": 1}) == ("asked", "a b")
    assert shown("status", {"sent": 2, "draft": 1}) == ("understood", "sent")


def test_the_state_of_an_address_is_a_place():
    assert shown("state", {"NY": 90, "CA": 10}, about=frozenset({"city"})) == ("harmless", "NY CA")


@pytest.mark.parametrize(
    ("name", "hides"), [("is_not_public", True), ("unhidden", False), ("hide_from_public", True)]
)
def test_a_negation_is_understood_first(name, hides):
    assert read_direction(words(name)).hides is hides
    assert read_direction(words("robotics")).hides is None
    assert read_direction(words("secretary_of_publisher")).hides is None


def test_every_result_says_by_which_word_or_share():
    why = {
        name: decide(seen(name, counts, kind)).why
        for name, counts, kind in (
            ("is_not_public", {"yes": 5, "no": 50}, "flag"),
            ("language", {"en": 30, "de": 9}, "value"),
            ("status", {"draft": 30, "x": 30}, "value"),
            ("locked", {"yes": 5, "no": 95}, "flag"),
        )
    }
    assert why == {
        "is_not_public": "says who may see a row by the word not public",
        "language": "is harmless by the word language in its name",
        "status": "says who may see a row by its value draft",
        "locked": "has an exception in 5% of the rows",
    }


def test_all_lists_together_have_at_most_150_words():
    lists = [
        found
        for name, found in vars(known).items()
        if name.isupper() and isinstance(found, frozenset | tuple)
    ]
    every = {word for found in lists for word in found if isinstance(word, str)}
    # a letter or a digit is no word: those of a yes and a no
    assert len({word for word in every if len(word) > 1 and word.isalpha()}) <= 150
