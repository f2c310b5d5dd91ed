"""The closed rule of who may see a row: what the name and the values of one column say.

It has four results, in this order:

1. **understood**: its name or any of its values says a direction (`deleted`, `is_public`,
   `published_at`, `draft`), with negation. A value with a hidden word is hidden, whatever the
   column is called and however common it is. On what people write, `held`, `pending` and `rejected`
   hide as well; on accounts, a ban does. The direction holds, but is asked, if another word may
   turn it (`visible_in_portal`, `internal circular`), if a value can be read as neither
   (`published` = 2), or if "not yet" hides most rows.
2. **harmless**: its name is on a short list (language, category, priority, type, position), or its
   values say how far a row is (open, on hold, done), in tables of work also as flags: all rows are
   shown.
3. **asked**: its name has a word such as state, visibility or approval, or it is a yes and no whose
   rarer value has under 20% of the rows. Until a person answers, the uncommon values are left out.
   Common are values of at least three rows among those that make up 80% of them; if the name is
   about privacy, the most common value alone.
4. **facet**: everything else: all rows are shown.

No value at all is a value, too. It is hidden in a column about approval or publication ("not yet"),
elsewhere shown. In a table of fewer than 20 rows shares prove nothing: only hidden words hide, and
the table is asked as a whole.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.candidates import EMPTY, FUTURE, INVALID, PAST, Seen, Verdict
from rag_index.first_run.schema.words import (
    Direction,
    base,
    is_any,
    parts_of,
    read_direction,
    singular,
    verb_of,
    words,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from rag_index.first_run.schema.candidates import Result, SeenValue

RARE = 0.2
"""The share of rows under which the rarer of two values may be an exception, and a time a rare
event."""
COMMON = 0.8
"""The share of rows that the common values make up."""
FEW_ROWS = 20
"""Shares prove nothing in a smaller table."""
_MODERATED = frozenset({"moderate"})
BETWEEN = re.compile(r"[][(){}\"',;|/]+|\s-+\s|:\s")
"""What stands between the values of a list: `hidden,locked`, `["news", "internal"]`."""


def decide(seen: Seen) -> Verdict:
    """Return the rule's verdict on a column: that of the first of the four results that applies."""
    for judge in (_understood, _harmless, _asked):
        verdict = judge(seen)
        if verdict is not None:
            return verdict
    return Verdict("facet", "says nothing of who may see a row", seen.all_values, False)


def is_asked(word: str) -> bool:
    """Return whether a word of a name says that a person has to answer for the column."""
    if base(singular(word), known.ASKED) or known.STATE.fullmatch(word):
        # `status`, `statut`, `audience`
        return True
    # `approval`, `visibility`, but not `publication`
    return verb_of(word) not in ("", "publish")


def _rows_are(seen: Seen) -> Literal["work", "written", ""]:
    """Return whether rows are what people work on or write, by the last word of their noun that
    says so: an `order` is work, an `order_review` is written."""
    for word in reversed(seen.noun):
        if base(word, known.WORK):
            return "work"
        if base(word, known.WRITTEN):
            return "written"
    return ""


# --- 1. Understood ---


def _understood(seen: Seen) -> Verdict | None:
    """Return the verdict for a column whose name or values say a direction."""
    direction = says_of_rows(seen)
    if direction.hides is not None and seen.kind == "time":
        return _extended(seen, direction, _shown_times(seen, direction), is_unsure=False)
    verdict = None
    if direction.hides is not None:
        verdict = _by_name(seen, direction)
    if verdict is None and seen.kind == "value":
        verdict = _by_values(seen)
    return verdict


def _verdict(seen: Seen, why: str, shown: Collection[str], *, is_unsure: bool) -> Verdict:
    """Return the verdict that shows some values. It is asked if it is unsure, or if most rows are
    hidden because they have no value yet. If no row has one, nobody uses the column."""
    shown = {*shown}
    if not any(one.rows for one in seen.filled):
        shown |= {one.value for one in seen.values if one.is_empty}
    hidden = sum(one.rows for one in seen.values if one.is_empty and one.value not in shown)
    result: Result = "understood"
    if is_unsure or hidden > known.HALF * seen.rows:
        result = "asked"
    return Verdict(result, f"says who may see a row by {why}", frozenset(shown))


def says_of_rows(seen: Seen) -> Direction:
    """Return what the name of a column says of the rows with a yes, or with a time in the past."""
    named = seen.named
    if seen.kind != "value" or [_yes_or_no(one) for one in seen.filled] == [True]:
        # deletion_date, approval: X or nothing; but not `visibility`: 1, `publication`: Nature
        named = tuple(word if _is_privacy((word,)) else verb_of(word) or word for word in named)
    hide, show = known.HIDE, known.SHOW
    if seen.is_people or _is_ban(seen):
        hide |= known.BANNED
    past = tuple(word for word in seen.named if word.endswith("ed"))
    if _rows_are(seen) == "written" or is_any(past, _MODERATED):
        # a comment is held; what is moderated was written by somebody, but `moderate` is a command
        hide |= known.HELD
        show |= _MODERATED
    direction = read_direction(named, hide, show)
    if direction.hides is None:
        return _says_of_use(seen) if seen.kind == "flag" else direction
    rest = tuple(singular(word) for word in direction.rest if singular(word) not in seen.noun)
    has_readers = known.READERS & {*seen.named} and not is_any(rest, known.PERSONAL)
    if not rest or has_readers:
        # `comment_approved` of a comment, `visible_to_customer`
        return Direction(direction.hides, direction.word)
    return Direction(None) if _is_of_another(seen, direction, rest) else direction


def _is_ban(seen: Seen) -> bool:
    """Return whether a yes and no or a time may tell of a ban: `blocked_at`, `suspension_date`, but
    not a reference to a `block`, nor a task that is blocked."""
    if seen.kind == "value" or _rows_are(seen) == "work":
        return False
    return any(word.endswith("ed") or verb_of(word) for word in seen.named)


def _is_of_another(seen: Seen, direction: Direction, rest: tuple[str, ...]) -> bool:
    """Return whether a direction is about something else than the row, given the other words of the
    name in the singular."""
    if seen.kind == "value":
        return True
    if direction.after and direction.word in known.VERBS and direction.word in seen.named:
        # `hide_sidebar` is a command
        return True
    others = known.PERSONAL
    if not known.PLACED & {*seen.named}:
        # `comments_hidden` where there are comments; but not `visible_in_portal`
        others |= seen.about
    return is_any(rest, others)


def _says_of_use(seen: Seen) -> Direction:
    """Return what a name says of rows that are out of use or no longer the newest: `is_active`."""
    direction = read_direction(seen.named, known.OUT_OF_USE, known.IN_USE)
    if direction.hides is None and is_any(seen.named, known.NEWEST) and not direction.rest[1:]:
        # older versions, however many they are
        return Direction(False, direction.rest[0])
    last = seen.named[-1]
    if direction.hides is None and last in known.STATES and _rows_are(seen) != "work":
        # a status that is on or off
        direction = Direction(False, last)
    hidden = seen.rows_of("yes" if direction.hides else "no")
    is_most = 2 * hidden >= seen.rows
    return Direction(None) if direction.rest or is_most else direction


def _shown_times(seen: Seen, direction: Direction) -> set[str]:
    """Return which of empty, past and future are shown of a time whose name says a direction."""
    is_end = is_any((*seen.named, direction.word), known.ENDS)
    if direction.hides and base(direction.word, frozenset({"expire"})):
        # expires_at: until then
        return {EMPTY, FUTURE}
    if direction.hides:
        # hidden_until: from then on; deleted_at: once it is set
        return {EMPTY, PAST} if is_end else {EMPTY}
    if is_end:
        # valid_until
        return {EMPTY, FUTURE}
    filled = sum(one.rows for one in seen.filled)
    is_plan = "publish" in seen.named and filled < RARE * seen.rows
    if is_plan or not _is_release(seen):
        # publish_at, which only those have that are planned; valid_from
        return {PAST, EMPTY}
    # published_at, approval_date
    return {PAST}


def _extended(
    seen: Seen, direction: Direction, shown: Collection[str], *, is_unsure: bool
) -> Verdict:
    """Return the verdict for what a name says. If another word of it may turn that, it is asked,
    and hides no more than half of the rows."""
    if direction.rest:
        # `visible_in_portal`
        is_unsure = True
        hidden = sum(one.rows for one in seen.values if one.value not in shown)
        if hidden > known.HALF * seen.rows:
            shown = seen.all_values
    return _verdict(seen, f"the word {direction.word}", shown, is_unsure=is_unsure)


def _is_release(seen: Seen) -> bool:
    """Return whether a column is about approval or publication: no value means "not yet"."""
    for word in seen.named:
        parts = parts_of(verb_of(word) or word)
        if is_any(tuple(parts), known.RELEASE):
            return True
    return False


def _yes_or_no(one: SeenValue) -> bool | None:
    """Return whether a value can be read as a yes or a no beside a name that says a direction."""
    value = one.spoken.lower()
    if value in known.YES | known.IS_SET:
        return True
    return False if value in known.NO | known.IS_UNSET else None


def _by_name(seen: Seen, direction: Direction) -> Verdict | None:
    """Return the verdict for a column whose name says a direction; None if no value can be read.

    A value that says something itself counts as it says (`approved` = spam), another one as a yes
    or a no (`deleted` = X, `approved` = 0). One that can be read as neither is left out until a
    person answers (`published` = 2).
    """
    hides: dict[str, bool | None] = {}
    for one in seen.filled:
        says = value_hides(one.spoken, seen) if seen.kind == "value" else None
        answer = _yes_or_no(one)
        if says is None and answer is not None:
            says = direction.hides == answer
        hides[one.value] = says
    is_deed = direction.hides and base(direction.word, known.VERBS)
    if {*hides.values()} == {None} and not is_deed:
        # `visible` is ja or nein; but `removed` is "by its author" or empty
        return None
    shown = {value for value, says in hides.items() if says is False}
    # `visible` is X or nothing
    of_rows = {hides[one.value] for one in seen.filled if one.rows}
    is_no = False in of_rows and True not in of_rows
    if direction.hides or not (is_no or _is_release(seen)):
        shown |= seen.empty
    return _extended(seen, direction, shown, is_unsure=None in hides.values())


def value_hides(spoken: str, seen: Seen) -> bool | None:
    """Return whether the words of a value hide its rows, or show them to all; None if they say
    neither, or may describe something else."""
    direction = _direction_of_value(spoken, seen)
    if not seen.values and known.VERBS & {*words(spoken)}:
        # of names of rows: "Delete all posts" is what somebody may do
        return None
    return None if direction.after else direction.hides


def _direction_of_value(spoken: str, seen: Seen) -> Direction:
    """Return what a value says: what one of several says that hides, or else the first. `after` is
    the noun that its word may describe."""
    hide = known.HIDE | {"sensitive"}
    if seen.is_people:
        hide |= known.BANNED
    if _rows_are(seen) == "written":
        hide |= known.HELD
    if is_any(seen.noun, known.ROOMS):
        # D and P are direct and private
        hide |= known.DIRECT | ({spoken.lower()} & {"d", "p"})
    found = Direction(None)
    for part in BETWEEN.split(spoken) if INVALID not in spoken else ():
        direction = _direction_of_words(words(part), hide)
        if found.hides is None or (direction.hides and not found.hides):
            # `news, hidden`
            found = direction
    if found.after and _is_of_rows(found.after, spoken, seen):
        return replace(found, after="")
    return found


def _is_of_rows(noun: str, spoken: str, seen: Seen) -> bool:
    """Return whether a word of a value describes rows by a noun: "internal note" of a note,
    "private group" beside "open group", but not "draft beer"."""
    own = known.WRITTEN | known.CONTAINERS | known.ROOMS | known.GROUPS
    if singular(noun) in own.union(seen.noun):
        return True
    return any(noun in words(one.spoken) for one in seen.values if one.spoken != spoken)


def _direction_of_words(named: tuple[str, ...], hide: frozenset[str]) -> Direction:
    """Return what the words of a value say."""
    if {"not", "no"} & {*named}:
        # "not for publication", but not "waiting for approval"
        named = tuple(verb_of(word) or word for word in named)
    direction = read_direction(named, hide)
    if direction.hides is None and named[1:] == ("only",) and singular(named[0]) != named[0]:
        # "Directors only" or "weekends only"
        return Direction(True, "only", after=named[0])
    return direction


def _are_deeds(seen: Seen) -> bool:
    """Return whether values are what somebody did, as a log has it, and not the result: `delete`
    beside `login`, but not `hide` beside `show`."""
    named = [words(one.spoken) for one in seen.filled]
    if all(known.VERBS.isdisjoint(name) for name in named):
        return False
    directions = {read_direction(name).hides for name in named}
    return not directions >= {True, False}


def _by_values(seen: Seen) -> Verdict | None:
    """Return the verdict for a column some of whose values say a direction."""
    if _are_deeds(seen):
        return None
    hides: dict[str, bool | None] = {}
    is_unsure, is_harmless = False, bool(_harmless_word(seen))
    for one in seen.filled:
        direction = _direction_of_value(one.spoken, seen)
        hides[one.value] = direction.hides
        if direction.after and (is_harmless or not direction.hides):
            # "public health" says nothing
            hides[one.value] = None
        elif direction.after:
            # "internal circular" may hide
            is_unsure = True
    telling = [one for one in seen.filled if hides[one.value] is not None]
    # one that hides is the reason before one that shows
    telling.sort(key=lambda one: not hides[one.value])
    if not telling:
        return None
    releases, is_work = False in hides.values(), _rows_are(seen) == "work"
    common = _common(seen) if any(map(is_asked, seen.named)) else seen.all_values
    for one in seen.filled:
        if hides[one.value] is not None:
            continue
        named = words(one.spoken)
        if not is_work and is_any(named, known.HELD):
            # pending, where others are drafts, published or approved
            hides[one.value] = True
        elif is_any(named, known.PROGRESS):
            continue
        elif (releases and not is_work) or one.value not in common:
            # "in review" or "scheduled", where others are published
            hides[one.value] = is_unsure = True
    shown = {value for value, says in hides.items() if not says}
    if not (releases or _is_release(seen)):
        # where others are published, no value says that this one is not yet
        shown |= seen.empty
    return _verdict(seen, f"its value {telling[0].spoken}", shown, is_unsure=is_unsure)


# --- 2. Harmless ---


def _harmless_word(seen: Seen) -> str:
    """Return the word of a name that says that the column is about something else: `language`."""
    if any(map(is_asked, seen.named)):
        # `status_position`, but not `access_category`
        last = seen.named[-1]
        return last if last in known.ORDERS else ""
    return next((word for word in map(singular, seen.named) if word in known.HARMLESS), "")


def _harmless(seen: Seen) -> Verdict | None:
    """Return the verdict for a column whose name or values say something else of a row."""
    why = _why_harmless(seen)
    if why:
        return Verdict("harmless", why, seen.all_values, False)
    if seen.kind == "value" and _are_progress(seen):
        return Verdict("harmless", "says how far a row is by its values", seen.all_values)
    return None


def _why_harmless(seen: Seen) -> str:
    """Return why a column is harmless by its name; "" if it is not."""
    word = _harmless_word(seen)
    if word:
        return f"is harmless by the word {word} in its name"
    if seen.named[-1] == "state" and is_any(tuple(seen.about), known.PLACE_WORDS):
        return "is a place: there is a city or a country beside it"
    is_flag = seen.kind != "value" and _rows_are(seen) == "work"
    if is_flag and is_any(seen.named, known.PROGRESS):
        # `completed` of a task
        return "says how far the work is"
    return ""


def _are_progress(seen: Seen) -> bool:
    """Return whether values say how far a row is. In a column that is called a state, half of them
    are enough; of work, a single one: `state` is waiting, done and "at work"."""
    told = [is_any(words(one.spoken), known.PROGRESS) for one in seen.filled]
    rows = _rows_are(seen)
    needed: float = len(told)
    if rows != "written" and is_any((*seen.named, *seen.names), known.STATES):
        needed = 1 if rows == "work" else len(told) / 2
    return any(told) and sum(told) >= needed


# --- 3. Asked ---


def _asked(seen: Seen) -> Verdict | None:
    """Return the verdict for a column that a person has to answer for."""
    why = _why_asked(seen)
    if not why:
        return None
    if seen.rows < FEW_ROWS:
        why = f"{why}; {seen.rows} rows are too few for shares"
        return Verdict("asked", why, seen.all_values)
    return Verdict("asked", why, _common(seen))


def _why_asked(seen: Seen) -> str:
    """Return why a column is asked; "" if it is not."""
    asked = [word for word in (*seen.named, *seen.names) if is_asked(word)]
    if asked and seen.kind != "time":
        return f"may say who sees a row by the word {asked[0]} in its name"
    direction = read_direction(seen.named)
    if seen.kind == "value" and direction.hides is not None and not direction.rest:
        return f"may say who sees a row by the word {direction.word}, and its values do not say how"
    if _names_few_groups(seen):
        return "may name the group for which a row is, where most rows name none"
    if seen.kind == "value" or _is_explained(seen):
        return ""
    total = max(1, sum(one.rows for one in seen.values))
    rarer = sum(one.rows for one in seen.filled)
    if seen.kind == "flag":
        yes = seen.rows_of("yes")
        rarer = min(yes, total - yes)
    is_rare = 0 < rarer < RARE * total
    return f"has an exception in {rarer / total:.0%} of the rows" if is_rare else ""


def _names_few_groups(seen: Seen) -> bool:
    """Return whether a column names groups, and most rows name none."""
    own = [word for word in seen.named if word not in known.KEY_WORDS]
    # `vlan_group`, if it refers to a table of these, is none of readers
    nouns = map(singular, seen.names or own[-1:])
    if seen.kind != "value" or not is_any(tuple(nouns), known.GROUPS):
        return False
    filled = sum(one.rows for one in seen.values if one.value not in known.NO_GROUP)
    return 0 < filled < seen.rows / 2


def _is_explained(seen: Seen) -> bool:
    """Return whether a yes and no is about something else that the database knows: the comments of
    a row, its phone."""
    if seen.kind == "time":
        # a date in the past tells what happened: last_made, date of modification
        is_past_date = "date" in seen.named and not seen.rows_of(FUTURE)
        if is_past_date or known.POINTERS & {*seen.named}:
            return True
    if seen.named[0] in known.EXPLAINED:
        # `has_invoice`
        return True
    rest = map(singular, read_direction(seen.named).rest)
    return is_any(tuple(rest), known.PERSONAL | seen.about)


def _is_privacy(named: tuple[str, ...]) -> bool:
    """Return whether a name is about privacy: `access`, `confidentiality`, but not `approval`."""
    if is_any(named, known.PRIVACY):
        return True
    directed = known.HIDE | known.SHOW
    verbs = {verb_of(word) or base(word, directed) for word in named}
    deeds = known.HELD | known.BANNED | known.RELEASE | {"delete", "remove", "expire", ""}
    return not verbs <= deeds


def _common(seen: Seen) -> frozenset[str]:
    """Return the values that are common enough to be shown until a person answers."""
    if _names_few_groups(seen):
        return seen.all_values & known.NO_GROUP
    shown: set[str] = set()
    total = sum(one.rows for one in seen.values)
    is_privacy = _is_privacy(seen.named)
    before, last = 0, 0
    # of a time that few rows have, none is common
    for one in seen.values if seen.kind != "time" else ():
        is_common = one.rows >= known.MIN_ROWS and (before < COMMON * total or one.rows == last)
        if one.rows and (before == 0 or (is_common and not is_privacy)):
            shown.add(one.value)
            last = one.rows
        before += one.rows
    return frozenset(shown - seen.empty if _is_release(seen) else shown | seen.empty)
