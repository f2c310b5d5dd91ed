"""What a person, a script or an assistant answers: one model for the terminal, the page of `try`
and files.

`init --json` prints the ids. A file names those that get another treatment than the one that holds:

    {"comment.held": {"show": ["no"]}, "audit": "leave out", "ticket.email": "text"}
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    RootModel,
    ValidationError,
    model_validator,
)

from rag_index.errors import SettingsError, shortened
from rag_index.first_run.schema.candidates import Decisions, ShownAndHidden

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rag_index.first_run.schema.candidates import Candidate, Place, Use
    from rag_index.first_run.schema.proposed import Proposal

STDIN = "-"
"""The name of a file that stands for the standard input."""
MAX_NEAR = 3
"""A message about an unknown id or value names at most this many near ones."""
MAX_SHOWN = 80
"""Characters of an unknown id or value that a message repeats."""
OF_VALUES = '{"show": [VALUE, …], "hide": [VALUE, …]}'
OF_TABLES = '"document" or "leave out"'
OF_COLUMNS = '"title", "text" or "leave out"'


def _as_text(value: Any) -> Any:
    """Return a value of JSON as people write it: `false` is no, `null` is empty, `3` is "3"."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    return value


class ValuesAnswer(BaseModel):
    """Which values of a column are shown, and which are not. A value that is not named keeps what
    holds.

    Values are written as the database has them ("0"), or as people read them ("no").
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    show: tuple[Annotated[str, BeforeValidator(_as_text)], ...] = ()
    hide: tuple[Annotated[str, BeforeValidator(_as_text)], ...] = ()

    @model_validator(mode="after")
    def _check_that_it_answers(self) -> ValuesAnswer:
        if not (self.show or self.hide):
            raise ValueError("names no value")
        return self


Answer = ValuesAnswer | Literal["document", "leave out", "title", "text"]


class Answers(RootModel[dict[str, Answer]]):
    """Answers by the ids of what they are about."""

    root: dict[str, Answer] = {}

    @classmethod
    def parse(cls, given: Any) -> Answers:
        """Return answers that came as JSON. Raises SettingsError if one of them has no form of an
        answer."""
        if not isinstance(given, dict):
            raise SettingsError(
                'answers are a JSON object, such as {"comment.held": {"show": ["no"]}}'
            )
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            wrong = error.errors()[0]["loc"][0]
        forms = (
            f"{OF_VALUES} for a column, {OF_TABLES} for a table, {OF_COLUMNS} for a column with"
            " text"
        )
        raise SettingsError(f"the answer to {shortened(str(wrong), MAX_SHOWN)} must be {forms}")

    @classmethod
    def read(cls, file: str) -> Answers:
        """Return the answers in a file, or those on the standard input for `-`. Raises
        SettingsError."""
        name = "the standard input" if file == STDIN else file
        try:
            text = sys.stdin.read() if file == STDIN else Path(file).read_text(encoding="utf-8")
            return cls.parse(json.loads(text, object_pairs_hook=_without_duplicates))
        except OSError as error:
            raise SettingsError(f"the answers in {name} cannot be read: {error.strerror}") from None
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise SettingsError(f"the answers in {name} are not JSON: {error}") from None
        except SettingsError as error:
            raise SettingsError(f"{name}: {error}") from None

    def with_answer(self, question: str, answer: Answer) -> Answers:
        """Return these answers and one more, in place of an earlier one with the same id."""
        return Answers({**self.root, question: answer})

    def known_to(self, proposal: Proposal) -> Answers:
        """Return the answers to questions of a proposal."""
        ids = {one.id for one in proposal.candidates}
        for table in proposal.tables:
            ids.add(table.name)
            ids.update(column.id for column in table.columns)
        known = {question: self.root[question] for question in self.root if question in ids}
        return Answers(known)

    def decisions(self, first: Proposal) -> Decisions:
        """Check the answers against the proposal without any, and return what they decide.

        Raises:
            SettingsError: there is no such id or value, or the answer is one for something else.
        """
        candidates = {one.id: one for one in first.candidates}
        tables = {one.name for one in first.tables}
        columns: set[str] = set()
        for table in first.tables:
            columns.update(column.id for column in table.columns)
        values: dict[str, ShownAndHidden] = {}
        places: dict[str, Place] = {}
        uses: dict[str, Use] = {}
        for question, answer in self.root.items():
            if isinstance(answer, ValuesAnswer) and question in candidates:
                # "comment.held": {"show": ["no"]}
                values[question] = _checked(candidates[question], answer)
            elif answer in ("document", "leave out") and question in tables:
                # "audit": "leave out"
                places[question] = answer
            elif answer in ("title", "text", "leave out") and question in columns:
                # "ticket.email": "text"
                uses[question] = answer
            else:
                raise _misplaced(question, candidates, tables, columns)
        return Decisions(values, places, uses)


def _without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON. Raises SettingsError if it has a key twice: one of the two would be
    ignored."""
    repeated = [key for key, times in Counter(key for key, _ in pairs).items() if times > 1]
    if repeated:
        raise SettingsError(f"{shortened(repeated[0], MAX_SHOWN)} is answered twice: leave one out")
    return dict(pairs)


def _checked(candidate: Candidate, answer: ValuesAnswer) -> ShownAndHidden:
    """Return an answer with the values as the settings have them.

    Raises:
        SettingsError: the column has no such value, or it is named as shown and as hidden.
    """
    show: set[str] = set()
    for named in answer.show:
        show |= values_of(candidate, named)
    hide: set[str] = set()
    for named in answer.hide:
        hide |= values_of(candidate, named)
    for both in sorted(show & hide):
        spoken = both or "empty"
        raise SettingsError(
            f"{candidate.id} cannot both show and hide {spoken}: name the value once"
        )
    return ShownAndHidden(frozenset(show), frozenset(hide))


def values_of(candidate: Candidate, named: str) -> set[str]:
    """Return the values of a candidate that people read so, such as Y and y of `yes`, or else the
    one that is written so in the database.

    Raises:
        SettingsError: there is none, or `empty` is a text beside no value at all.
    """
    read = {one.value for one in candidate.values if one.spoken == named}
    written = {one.value for one in candidate.values if one.value == named}
    if read and written - read:
        raise SettingsError(
            f'{candidate.id} is {named} in two ways: write "" for no value and "\\"{named}\\"" for the'
            " text"
        )
    found = read or written
    if found:
        return found
    spoken = [one.spoken for one in candidate.values]
    near = ", ".join(get_close_matches(named, spoken, MAX_NEAR) or spoken)
    unknown = shortened(named, MAX_SHOWN)
    raise SettingsError(f"{candidate.id} is never {unknown}: it is {near}")


def _misplaced(
    question: str, candidates: Iterable[str], tables: Iterable[str], columns: Iterable[str]
) -> SettingsError:
    """Return the error of an answer to something else, or to nothing that there is."""
    forms = []
    if question in candidates:
        forms.append(OF_VALUES)
    if question in tables:
        forms.append(OF_TABLES)
    if question in columns:
        forms.append(OF_COLUMNS)
    if forms:
        return SettingsError(f"the answer to {question} must be {' or '.join(forms)}")
    near = get_close_matches(question, [*candidates, *tables, *columns], MAX_NEAR)
    hint = f"near ones are {', '.join(near)}" if near else "init --json prints all ids"
    return SettingsError(f"there is no question {shortened(question, MAX_SHOWN)}: {hint}")
