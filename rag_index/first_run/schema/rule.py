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
from typing import TYPE_CHECKING

from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.candidates import EMPTY, FUTURE, INVALID, PAST, Seen, Verdict
from rag_index.first_run.schema.words import (
    Direction,
    base,
    direction,
    is_any,
    parts_of,
    singular,
    verb_of,
    words,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from rag_index.first_run.schema.candidates import SeenValue

RARE = 0.2
"""The share of rows under which the rarer of two values may be an exception, and a time a rare
event."""
COMMON = 0.8
"""The share of rows that the common values make up."""
FEW_ROWS = 20
"""Shares prove nothing in a smaller table."""
BETWEEN = re.compile(r"[][(){}\"',;|/]+|\s-+\s|:\s")
"""What stands between the values of a list: `hidden,locked`, `["news", "internal"]`."""


def decide(seen: Seen) -> Verdict:
    """Return what the rule says of a column."""
    verdict = _understood(seen) or _harmless(seen) or _asked(seen)
    return verdict or Verdict("facet", "says nothing of who may see a row", _all(seen), False)


def is_asked(word: str) -> bool:
    """Return whether a word of a name says that a person has to answer for the column."""
    state = base(singular(word), known.ASKED) or known.STATE.fullmatch(word)
    return bool(state) or verb_of(word) not in ("", "publish")


def _is_work(seen: Seen) -> bool:
    """Return whether rows are what people work on: `order`, but not `order_review`."""
    told = [word for word in seen.noun if is_any((word,), known.WORK | known.WRITTEN)]
    return bool(told) and is_any(tuple(told[-1:]), known.WORK)


def _is_written(seen: Seen) -> bool:
    """Return whether rows are what people write."""
    return is_any(seen.noun, known.WRITTEN) and not _is_work(seen)


def _all(seen: Seen) -> frozenset[str]:
    return frozenset(one.value for one in seen.values)


def _filled(seen: Seen) -> list[SeenValue]:
    return [one for one in seen.values if not one.is_empty]


# --- 1. Understood ---


def _understood(seen: Seen) -> Verdict | None:
    """Return the verdict for a column whose name or values say a direction."""
    said = says_of_rows(seen)
    if said.hides is not None and seen.kind == "time":
        return _by_time(seen, said)
    by_name = _by_name(seen, said) if said.hides is not None else None
    return by_name or (_by_values(seen) if seen.kind == "value" else None)


def _verdict(seen: Seen, why: str, shown: Collection[str], *, is_unsure: bool) -> Verdict:
    """Return the verdict that shows some values. It is asked if it is unsure, or if most rows are
    hidden because they have no value yet."""
    hidden = sum(one.rows for one in seen.values if one.is_empty and one.value not in shown)
    is_unsure = is_unsure or hidden > known.HALF * seen.rows
    why = f"says who may see a row by {why}"
    return Verdict("asked" if is_unsure else "understood", why, frozenset(shown))


def says_of_rows(seen: Seen) -> Direction:
    """Return what the name of a column says of the rows with a yes, or with a time in the past."""
    hide, show, named = known.HIDE, known.SHOW, seen.named
    if seen.kind != "value" or [_yes_or_no(one) for one in _filled(seen)] == [True]:
        # deletion_date, approval: X or nothing; but not `visibility`: 1, `publication`: Nature
        named = tuple(word if _is_privacy((word,)) else verb_of(word) or word for word in named)
    # blocked_at, suspension_date; but not a reference to a `block`
    is_ban = any(word.endswith("ed") or verb_of(word) for word in seen.named)
    if seen.is_people or (is_ban and seen.kind != "value" and not _is_work(seen)):
        hide |= known.BANNED
    if _is_written(seen):
        hide, show = hide | known.HELD, show | {"moderate"}
    said = direction(named, hide, show)
    if said.hides is None:
        return _says_of_use(seen) if seen.kind == "flag" else said
    rest = tuple(word for word in said.rest if singular(word) not in seen.noun)
    if not rest or (known.READERS & {*named} and not is_any(rest, known.PERSONAL)):
        # `comment_approved` of a comment, `visible_to_customer`
        return Direction(said.hides, said.word)
    is_command = said.after and said.word in known.VERBS & {*seen.named}
    others = known.PERSONAL if known.PLACED & {*named} else known.PERSONAL | seen.about
    is_other = seen.kind == "value" or is_any(tuple(map(singular, rest)), others)
    # `hide_sidebar`, `comments_hidden` where there are comments; but not `visible_in_portal`
    return Direction(None) if is_command or is_other else said


def _says_of_use(seen: Seen) -> Direction:
    """Return what a name says of rows that are out of use or no longer the newest: `is_active`."""
    said = direction(seen.named, known.OUT_OF_USE, known.IN_USE)
    if said.hides is None and is_any(seen.named, known.NEWEST) and not said.rest[1:]:
        # older versions, however many they are
        return Direction(False, said.rest[0])
    if said.hides is None and not _is_work(seen) and seen.named[-1] in known.STATES:
        # a status that is on or off
        said = Direction(False, seen.named[-1])
    hidden = "yes" if said.hides else "no"
    rows = sum(one.rows for one in seen.values if one.spoken == hidden)
    is_most = 2 * rows >= seen.rows
    return Direction(None) if said.rest or is_most else said


def _by_time(seen: Seen, said: Direction) -> Verdict:
    """Return the verdict for a time: which of empty, past and future are shown."""
    is_end = bool(known.ENDS & {*seen.named}) or is_any((said.word,), known.ENDS)
    filled = sum(one.rows for one in _filled(seen))
    if said.hides and is_any((said.word,), frozenset({"expire"})):
        # expires_at: until then
        shown = {EMPTY, FUTURE}
    elif said.hides and is_end:
        # hidden_until: from then on
        shown = {EMPTY, PAST}
    elif said.hides:
        # deleted_at: once it is set
        shown = {EMPTY}
    elif is_end:
        # valid_until
        shown = {EMPTY, FUTURE}
    elif not _is_release(seen) or ("publish" in seen.named and filled < RARE * seen.rows):
        # valid_from; publish_at, which only those have that are planned
        shown = {PAST, EMPTY}
    else:
        # published_at, approval_date
        shown = {PAST}
    return _extended(seen, said, shown, is_unsure=False)


def _extended(seen: Seen, said: Direction, shown: Collection[str], *, is_unsure: bool) -> Verdict:
    """Return the verdict for what a name says. If another word of it may turn that, it is asked,
    and hides no more than half of the rows."""
    hidden = sum(one.rows for one in seen.values if one.value not in shown)
    if said.rest and hidden > known.HALF * seen.rows:
        shown = _all(seen)
    return _verdict(seen, f"the word {said.word}", shown, is_unsure=is_unsure or bool(said.rest))


def _is_release(seen: Seen) -> bool:
    """Return whether a column is about approval or publication: no value means "not yet"."""
    parts: list[str] = []
    for word in seen.named:
        parts += parts_of(verb_of(word) or word)
    return is_any(tuple(parts), known.RELEASE)


def _yes_or_no(one: SeenValue) -> bool | None:
    """Return whether a value can be read as a yes or a no beside a name that says a direction."""
    value = one.spoken.lower()
    if value in known.YES | known.IS_SET:
        return True
    return False if value in known.NO | known.IS_UNSET else None


def _by_name(seen: Seen, said: Direction) -> Verdict | None:
    """Return the verdict for a column whose name says a direction; None if no value can be read.

    A value that says something itself counts as it says (`approved` = spam), another one as a yes
    or a no (`deleted` = X, `approved` = 0). One that can be read as neither is left out until a
    person answers (`published` = 2).
    """
    hides: dict[str, bool | None] = {}
    has_yes = has_no = False
    for one in _filled(seen):
        says = value_hides(one.spoken, seen) if seen.kind == "value" else None
        answer = _yes_or_no(one)
        if says is None and answer is not None:
            says = said.hides == answer
        hides[one.value] = says
        has_yes |= bool(one.rows) and says is False
        has_no |= bool(one.rows) and says is True
    is_deed = said.hides and is_any((said.word,), known.VERBS)
    if hides and all(says is None for says in hides.values()) and not is_deed:
        # `visible` is ja or nein; but `removed` is "by its author" or empty
        return None
    # `visible` is X or nothing
    is_no = has_yes and not has_no
    hides_empty = not said.hides and (_is_release(seen) or is_no)
    shown = {value for value, says in hides.items() if says is False}
    shown |= {one.value for one in seen.values if one.is_empty and not hides_empty}
    return _extended(seen, said, shown, is_unsure=None in hides.values())


def value_hides(spoken: str, seen: Seen) -> bool | None:
    """Return whether the words of a value hide its rows, or show them to all; None if they say
    neither, or may describe something else."""
    said = _said_by_value(spoken, seen)
    # of names of rows: "Delete all posts" is what somebody may do
    is_command = not seen.values and known.VERBS & {*words(spoken)}
    return None if said.after or is_command else said.hides


def _said_by_value(spoken: str, seen: Seen) -> Direction:
    """Return what a value says: what one of several says that hides, or else the first. `after` is
    the noun that its word may describe."""
    hide = known.HIDE | {"sensitive"} | (known.BANNED if seen.is_people else frozenset())
    hide |= known.HELD if _is_written(seen) else frozenset()
    if is_any(seen.noun, known.ROOMS):
        # D and P are direct and private
        hide |= known.DIRECT | ({spoken.lower()} & {"d", "p"})
    parts = BETWEEN.split(spoken) if INVALID not in spoken else []
    found = [_said_by_words(words(part), hide) for part in parts if part.strip()]
    found = [one for one in found if one.hides is not None]
    first = next((one for one in found if one.hides), found[0] if found else Direction(None))
    if not first.after:
        return first
    # "internal note" of a note, "private group" beside "open group", but not "draft beer"
    own = {*seen.noun, *known.WRITTEN, *known.CONTAINERS, *known.ROOMS, *known.GROUPS}
    others: set[str] = set()
    for one in seen.values:
        others |= {*words(one.spoken)} if one.spoken != spoken else set()
    is_own = singular(first.after) in own or first.after in others
    return Direction(first.hides, first.word) if is_own else first


def _said_by_words(named: tuple[str, ...], hide: frozenset[str]) -> Direction:
    """Return what the words of a value say."""
    if {"not", "no"} & {*named}:
        # "not for publication", but not "waiting for approval"
        named = tuple(verb_of(word) or word for word in named)
    said = direction(named, hide)
    readers = [word for word in named if singular(word) != word]
    if said.hides is None and named[-1:] == ("only",) and readers and not named[2:]:
        # "Directors only" or "weekends only"
        return Direction(True, "only", after=readers[0])
    return said


def _are_deeds(seen: Seen) -> bool:
    """Return whether values are what somebody did, as a log has it, and not the result: `delete`
    beside `login`, but not `hide` beside `show`."""
    named = [words(one.spoken) for one in _filled(seen)]
    is_bare = any(known.VERBS & {*said} for said in named)
    return is_bare and not {True, False} <= {direction(said).hides for said in named}


def _by_values(seen: Seen) -> Verdict | None:
    """Return the verdict for a column some of whose values say a direction."""
    is_harmless = bool(_harmless_word(seen))
    is_unsure, hides = False, dict[str, bool | None]()
    for one in _filled(seen) if not _are_deeds(seen) else ():
        said = _said_by_value(one.spoken, seen)
        # "public health" says nothing, and "internal circular" may hide
        is_about = said.after and (is_harmless or not said.hides)
        hides[one.value] = None if is_about else said.hides
        is_unsure |= bool(said.after and not is_about)
    first = next((one for one in _filled(seen) if hides.get(one.value) is True), None)
    first = first or next((one for one in _filled(seen) if hides.get(one.value) is False), None)
    if first is None:
        return None
    asked, releases, work = any(map(is_asked, seen.named)), False in hides.values(), _is_work(seen)
    for one in seen.values:
        said_words = words(one.spoken)
        if one.is_empty:
            # the others are published, this one is not yet
            hides[one.value] = releases or _is_release(seen)
        elif hides[one.value] is not None:
            continue
        elif not work and is_any(said_words, known.HELD):
            # pending, where others are drafts, published or approved
            hides[one.value] = True
        elif is_any(said_words, known.PROGRESS):
            hides[one.value] = False
        elif (releases and not work) or (asked and one.value not in _common(seen)):
            # "in review" or "scheduled", where others are published
            hides[one.value] = is_unsure = True
    shown = {one.value for one in seen.values if not hides[one.value]}
    return _verdict(seen, f"its value {first.spoken}", shown, is_unsure=is_unsure)


# --- 2. Harmless ---


def _harmless_word(seen: Seen) -> str:
    """Return the word of a name that says that the column is about something else: `language`."""
    if any(map(is_asked, seen.named)):
        # `status_position`, but not `access_category`
        return next((word for word in seen.named[-1:] if word in known.ORDERS), "")
    return next((word for word in map(singular, seen.named) if word in known.HARMLESS), "")


def _harmless(seen: Seen) -> Verdict | None:
    """Return the verdict for a column whose name or values say something else of a row."""
    word, work = _harmless_word(seen), _is_work(seen)
    if word:
        return Verdict("harmless", f"is harmless by the word {word} in its name", _all(seen), False)
    if seen.named[-1:] == ("state",) and is_any(tuple(seen.about), known.PLACE_WORDS):
        why = "is a place: there is a city or a country beside it"
        return Verdict("harmless", why, _all(seen), False)
    if seen.kind != "value":
        is_progress = work and is_any(seen.named, known.PROGRESS)
        why = "says how far the work is"
        return Verdict("harmless", why, _all(seen), False) if is_progress else None
    told = [is_any(words(one.spoken), known.PROGRESS) for one in _filled(seen)]
    # `state` is waiting, done and "at work"; a word alone tells it of work
    is_state = is_any((*seen.named, *seen.names), known.STATES) and not _is_written(seen)
    needed: float = len(told)
    if is_state:
        needed = 1 if work else len(told) / 2
    if any(told) and sum(told) >= needed:
        return Verdict("harmless", "says how far a row is by its values", _all(seen))
    return None


# --- 3. Asked ---


def _asked(seen: Seen) -> Verdict | None:
    """Return the verdict for a column that a person has to answer for."""
    why = _why_asked(seen)
    if not why:
        return None
    if seen.rows < FEW_ROWS:
        return Verdict("asked", f"{why}; {seen.rows} rows are too few for shares", _all(seen))
    return Verdict("asked", why, _common(seen))


def _why_asked(seen: Seen) -> str:
    """Return why a column is asked; "" if it is not."""
    asked = [word for word in (*seen.named, *seen.names) if is_asked(word)]
    if asked and seen.kind != "time":
        return f"may say who sees a row by the word {asked[0]} in its name"
    said = direction(seen.named)
    if seen.kind == "value" and said.hides is not None and not said.rest:
        return f"may say who sees a row by the word {said.word}, and its values do not say how"
    if _names_few_groups(seen):
        return "may name the group for which a row is, where most rows name none"
    if seen.kind == "value" or _is_explained(seen):
        return ""
    total = max(1, sum(one.rows for one in seen.values))
    rarer = sum(one.rows for one in _filled(seen))
    if seen.kind == "flag":
        yes = sum(one.rows for one in seen.values if one.spoken == "yes")
        rarer = min(yes, total - yes)
    is_rare = 0 < rarer < RARE * total
    return f"has an exception in {rarer / total:.0%} of the rows" if is_rare else ""


def _names_few_groups(seen: Seen) -> bool:
    """Return whether a column names groups, and most rows name none."""
    own = [word for word in seen.named if word not in known.KEY_WORDS]
    # `vlan_group`, if it refers to a table of these, is none of readers
    named = is_any(tuple(map(singular, seen.names or own[-1:])), known.GROUPS)
    filled = sum(one.rows for one in seen.values if one.value not in known.NO_GROUP)
    return named and seen.kind == "value" and 0 < filled < seen.rows / 2


def _is_explained(seen: Seen) -> bool:
    """Return whether a yes and no is about something else that the database knows: the comments of
    a row, its phone."""
    rest = tuple(map(singular, direction(seen.named).rest))
    # a date in the past tells what happened: last_made, date of modification
    is_future = any(one.rows for one in seen.values if one.spoken == FUTURE)
    is_fact = known.POINTERS & {*seen.named} or ("date" in seen.named and not is_future)
    if seen.kind == "time" and is_fact:
        return True
    return seen.named[0] in known.EXPLAINED or is_any(rest, known.PERSONAL | seen.about)


def _is_privacy(named: Sequence[str]) -> bool:
    """Return whether a name is about privacy: `access`, `confidentiality`, but not `approval`."""
    verbs = {verb_of(word) or base(word, known.HIDE | known.SHOW) for word in named}
    is_deed = known.HELD | known.BANNED | known.RELEASE | {"delete", "remove", "expire", ""}
    return is_any(tuple(named), known.PRIVACY) or bool(verbs - is_deed)


def _common(seen: Seen) -> frozenset[str]:
    """Return the values that are common enough to be shown until a person answers."""
    empty = {one.value for one in seen.values if one.is_empty and not _is_release(seen)}
    if _names_few_groups(seen):
        return frozenset(one.value for one in seen.values if one.value in known.NO_GROUP)
    if seen.kind == "time":
        # a time that few rows have
        return frozenset(empty)
    shown: set[str] = set()
    total = sum(one.rows for one in seen.values)
    is_privacy = _is_privacy(seen.named)
    before, last = 0, 0
    for one in seen.values:
        is_common = one.rows >= known.MIN_ROWS and (before < COMMON * total or one.rows == last)
        if one.rows and (before == 0 or (is_common and not is_privacy)):
            shown.add(one.value)
            last = one.rows
        before += one.rows
    hidden = {one.value for one in seen.values if one.is_empty} - empty
    return frozenset((shown | empty) - hidden)
