"""The closed rule of who may see a row: what the name and the values of one column say.

It has four results, in this order:

1. **understood**: its name or any of its values says a direction (`deleted`, `is_public`,
   `published_at`, `draft`), with negation. A value with a hidden word is hidden, whatever the
   column is called and however common it is. On what people write, `held`, `pending` and `rejected`
   hide as well; on accounts, a ban does.
2. **harmless**: its name is on a short list (language, category, priority, type, position), or all
   its values say how far a row is (open, on hold, done), in tables of work also as flags: all rows
   are shown.
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

from typing import TYPE_CHECKING

from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.candidates import EMPTY, FUTURE, PAST, Result, Seen, Verdict
from rag_index.first_run.schema.words import (
    Direction,
    base,
    direction,
    is_any,
    parts_of,
    singular,
    words,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

RARE = 0.2
"""The share of rows under which the rarer of two values may be an exception, and a time a rare
event."""
COMMON = 0.8
"""The share of rows that the common values make up."""
FEW_ROWS = 20
"""Shares prove nothing in a smaller table."""


def decide(seen: Seen) -> Verdict:
    """Return what the rule says of a column."""
    verdict = _understood(seen) or _harmless(seen) or _asked(seen)
    return verdict or Verdict("facet", "says nothing of who may see a row", _all(seen))


def _is_work(seen: Seen) -> bool:
    """Return whether rows are what people work on: `order`, but not `order_review`."""
    said = [word for word in seen.noun if is_any((word,), known.WORK | known.WRITTEN)]
    return bool(said) and is_any(tuple(said[-1:]), known.WORK)


def _is_written(seen: Seen) -> bool:
    """Return whether rows are what people write."""
    return is_any(seen.noun, known.WRITTEN) and not _is_work(seen)


def _all(seen: Seen) -> frozenset[str]:
    return frozenset(one.value for one in seen.values)


# --- 1. Understood ---


def _understood(seen: Seen) -> Verdict | None:
    """Return the verdict for a column whose name or values say a direction."""
    if seen.kind == "value":
        return _understood_values(seen)
    said = direction(seen.named)
    if seen.is_people and is_any(seen.named, known.BANNED) and said.hides is None:
        said = Direction(True, next(word for word in seen.named if base(word, known.BANNED)))
    elif _is_written(seen) and said.hides is None and is_any(seen.named, known.HELD):
        said = Direction(True, next(word for word in seen.named if base(word, known.HELD)))
    elif (
        said.hides is None
        and seen.kind == "flag"
        and is_any(seen.named, known.NEWEST)
        and not said.rest[1:]
    ):
        said = Direction(False, said.rest[0])
    elif said.hides is None and seen.kind == "flag":
        return _out_of_use(seen)
    elif said.hides is None or not _is_about_rows(seen, said):
        return None
    why = f"says who may see a row by the word {said.word}"
    if seen.kind == "time":
        return Verdict("understood", why, _times_shown(seen, said))
    hidden = {"yes"} if said.hides else {"no"}
    if not said.hides and _is_release(seen):
        hidden.add(EMPTY)
    return Verdict(
        "understood", why, frozenset(one.value for one in seen.values if one.spoken not in hidden)
    )


def _out_of_use(seen: Seen) -> Verdict | None:
    """Return the verdict for a yes and no such as `is_active` that says of the fewer rows that they
    are out of use."""
    said = direction(seen.named, known.OUT_OF_USE, known.IN_USE)
    if said.hides is None and not _is_work(seen) and seen.named[-1] in known.STATES:
        # a status that is on or off
        said = Direction(False, seen.named[-1])
    hidden = "yes" if said.hides else "no"
    rows = sum(one.rows for one in seen.values if one.spoken == hidden)
    if said.hides is None or said.rest or 2 * rows >= seen.rows:
        return None
    shown = frozenset(one.value for one in seen.values if one.spoken != hidden)
    return Verdict("understood", f"says by the word {said.word} which rows are out of use", shown)


def _is_about_rows(seen: Seen, said: Direction) -> bool:
    """Return whether a direction is that of the row, and not that of its phone or of its
    comments."""
    # `comment_approved` of a comment
    rest = [word for word in said.rest if singular(word) not in seen.noun]
    readers = {"to", "for", "from"} & {*seen.named}
    return not rest or bool(readers and not is_any(tuple(rest), known.PERSONAL))


def _times_shown(seen: Seen, said: Direction) -> frozenset[str]:
    """Return which of empty, past and future are shown."""
    ends = "until" in seen.named or "to" in seen.named
    if said.hides and is_any(seen.named, frozenset({"expire"})):
        # expires_at: until then
        shown = {EMPTY, FUTURE}
    elif said.hides and ends:
        # hidden_until: from then on
        shown = {EMPTY, PAST}
    elif said.hides:
        # deleted_at: once it is set
        shown = {EMPTY}
    elif ends:
        # valid_until
        shown = {EMPTY, FUTURE}
    else:
        # published_at, valid_from. A date that hardly any row has does not say "not yet"
        filled = sum(one.rows for one in seen.values if not one.is_empty)
        shown = {PAST} if _is_release(seen) and filled >= RARE * seen.rows else {PAST, EMPTY}
    return frozenset(shown)


def _is_release(seen: Seen) -> bool:
    """Return whether a column is about approval or publication: no value means "not yet"."""
    return is_any(tuple(part for word in seen.named for part in parts_of(word)), known.RELEASE)


def value_hides(spoken: str, seen: Seen) -> bool | None:
    """Return whether the words of a value hide its rows, or show them to all; None if they say
    neither."""
    said = words(spoken)
    if seen.is_people and is_any(said, known.BANNED):
        return True
    if _is_written(seen) and is_any(said, known.HELD):
        return True
    if is_any(seen.noun, known.ROOMS) and (is_any(said, known.DIRECT) or spoken in ("D", "P")):
        # D and P are direct and private
        return True
    found = direction(said)
    if known.VERBS & {*said}:
        # what a log calls the deed, and not its result
        return None
    own = known.WRITTEN | known.CONTAINERS | {*seen.noun}
    # "internal note" of a note, but not "draft beer"
    about = [word for word in found.rest if singular(word) not in own]
    return None if about else found.hides


def _understood_values(seen: Seen) -> Verdict | None:
    """Return the verdict for a column some of whose values say a direction."""
    says = {one.value: value_hides(one.spoken, seen) for one in seen.values if not one.is_empty}
    named = direction(seen.named)
    if named.hides is not None and _is_about_rows(seen, named):
        return _understood_by_name(seen, named, says)
    hiding = [one.spoken for one in seen.values if says.get(one.value) is True]
    releasing = [one.spoken for one in seen.values if says.get(one.value) is False]
    if not (hiding or releasing):
        return None
    unknown: list[str] = []
    for one in seen.values:
        if one.is_empty:
            # the others are published, this one is not yet
            says[one.value] = bool(releasing) or _is_release(seen)
        elif says[one.value] is not None:
            continue
        elif not _is_work(seen) and is_any(words(one.spoken), known.HELD):
            # pending, where others are drafts, published or approved
            says[one.value] = True
        elif releasing and not _is_work(seen) and not is_any(words(one.spoken), known.PROGRESS):
            # "in review" or "scheduled", where others are published
            unknown.append(one.value)
            says[one.value] = True
        elif is_any(words(one.spoken), known.PROGRESS):
            says[one.value] = False
        elif is_any(seen.named, known.ASKED) and one.value not in _common(seen):
            unknown.append(one.value)
            says[one.value] = True
    shown = frozenset(one.value for one in seen.values if not says[one.value])
    result: Result = "asked" if unknown else "understood"
    return Verdict(result, f"says who may see a row by its value {[*hiding, *releasing][0]}", shown)


def _understood_by_name(seen: Seen, named: Direction, says: Mapping[str, bool | None]) -> Verdict:
    """Return the verdict for a column whose name says a direction, and whose values are more than
    yes and no.

    A value that says something itself counts as it says (`approved` = spam), another one as a yes
    or a no (`deleted` = X, `approved` = 0). One that can be read as neither is left out until a
    person answers (`published` = 2).
    """
    shown: set[str] = set()
    unread: list[str] = []
    for one in seen.values:
        hides = says.get(one.value)
        value = one.spoken.lower()
        if hides is None and (one.is_empty or value in known.NO | known.IS_UNSET):
            # not deleted; not approved yet
            hides = not named.hides
        elif hides is None and value in known.YES | known.IS_SET:
            hides = bool(named.hides)
        elif hides is None:
            unread.append(one.value)
        if hides is False:
            shown.add(one.value)
    result: Result = "asked" if unread else "understood"
    return Verdict(result, f"says who may see a row by the word {named.word}", frozenset(shown))


# --- 2. Harmless ---


def _harmless(seen: Seen) -> Verdict | None:
    """Return the verdict for a column whose name or values say something else of a row."""
    asked = is_any(seen.named, known.ASKED)
    for word in map(singular, seen.named[-1:] if asked else seen.named):
        # `status_size`, but not `visibility_type`
        if word in known.HARMLESS and not (asked and word in known.TYPE_WORDS):
            return Verdict("harmless", f"is harmless by the word {word} in its name", _all(seen))
    if seen.named[-1:] == ("state",) and is_any(tuple(seen.about), known.PLACE_WORDS):
        return Verdict("harmless", "is a place: there is a city or a country beside it", _all(seen))
    filled = [one for one in seen.values if not one.is_empty]
    if (
        seen.kind == "value"
        and filled
        and all(is_any(words(one.spoken), known.PROGRESS) for one in filled)
    ):
        return Verdict("harmless", "says how far a row is by all its values", _all(seen))
    if seen.kind != "value" and _is_work(seen) and is_any(seen.named, known.PROGRESS):
        return Verdict("harmless", "says how far the work is", _all(seen))
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
    asked = [
        word
        for word in (*seen.named, *seen.names)
        if base(singular(word), known.ASKED) or known.STATE.fullmatch(word)
    ]
    if asked and seen.kind != "time":
        return f"may say who sees a row by the word {asked[0]} in its name"
    said = direction(seen.named)
    if seen.kind == "value" and said.hides is not None and not said.rest:
        return f"may say who sees a row by the word {said.word}, and its values do not say how"
    filled = sum(one.rows for one in seen.values if not one.is_empty)
    total = max(1, sum(one.rows for one in seen.values))
    if _names_few_groups(seen):
        return "may name the group for which a row is, where most rows name none"
    if seen.kind == "value" or _is_explained(seen):
        return ""
    rarer = filled
    if seen.kind == "flag":
        yes = sum(one.rows for one in seen.values if one.spoken == "yes")
        rarer = min(yes, total - yes)
    return (
        f"has an exception in {rarer / total:.0%} of the rows" if 0 < rarer < RARE * total else ""
    )


def _names_few_groups(seen: Seen) -> bool:
    """Return whether a column names groups, and most rows name none."""
    named = is_any(tuple(map(singular, (*seen.named[-1:], *seen.names))), known.GROUPS)
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
    private = is_any(seen.named, known.PRIVACY)
    before, last = 0, 0
    for one in seen.values:
        is_common = one.rows >= known.MIN_ROWS and (before < COMMON * total or one.rows == last)
        if one.rows and (before == 0 or (is_common and not private)):
            shown.add(one.value)
            last = one.rows
        before += one.rows
    hidden = {one.value for one in seen.values if one.is_empty} - empty
    return frozenset((shown | empty) - hidden)
