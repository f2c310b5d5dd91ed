"""A generated service desk whose tickets are much alike, with queries and the tickets that are
right for each.

The seed decides texts, identifiers and queries. Kinds of identifiers, questions, rare words and
foreign subjects of odd seeds are others than those of even ones: choose numbers with `CHOOSING`,
and judge them with `JUDGING`.
"""

from __future__ import annotations

import json
import random
import re
import string
from dataclasses import dataclass, field
from pathlib import Path

CHOOSING, JUDGING = 2, 3
MAX_RIGHT = 3
"""The tickets at most that have one identifier, or one rare word."""
SENTENCES_OF_REMARK = 2
IDENTIFIERS_OF_KIND, PEOPLE, TICKETS_OF_PERSON = 12, 24, 8
EXACT = ("identifier", "identifier and word", "rare words", "name", "quoted name")
"""The kinds of queries whose right tickets have what was typed."""


@dataclass(frozen=True, slots=True)
class IdentifierKind:
    """A kind of identifiers. In its form, # stands for a digit, ? for a capital and * for a small
    letter.

    `words` are common words that people type beside one.
    """

    form: str
    sentence: str
    words: list[str]


@dataclass(frozen=True, slots=True)
class Topic:
    """What a ticket is about: its titles, descriptions and remarks, and questions in other
    words."""

    titles: list[str]
    descriptions: list[str]
    remarks: list[str]
    questions: list[str]


DATA = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
KINDS = [IdentifierKind(**kind) for kind in DATA["kinds"]]
TOPICS = [Topic(**topic) for topic in DATA["topics"]]


@dataclass(frozen=True, slots=True)
class DeskQuery:
    """A query of one kind of `EXACT`, a question, or nonsense, and the ids of the tickets that are
    right for it."""

    kind: str
    text: str
    right: frozenset[str] = frozenset()

    def is_right(self, found: list[str]) -> bool:
        """Return whether the right tickets come first. Of those with a name, the first five must
        have it."""
        if self.kind == "question":
            return bool(found) and found[0] in self.right
        if "name" in self.kind:
            return bool(found) and self.right.issuperset(found[:5])
        return self.right == set(found[: len(self.right)])


@dataclass(slots=True)
class Desk:
    """Tickets and queries."""

    documents: list[tuple[str, str, str]] = field(default_factory=list)
    """Each ticket as one text: id, title, text."""
    remarks: list[tuple[str, str]] = field(default_factory=list)
    """The sentences of the tickets, `SENTENCES_OF_REMARK` at a time: the id of the ticket, text."""
    queries: list[DeskQuery] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Ticket:
    topic: Topic
    title: str
    sentences: list[str]


class Writer:
    """Writes tickets, hides identifiers, names and words in some, and asks for them."""

    def __init__(self, tickets: int, seed: int) -> None:
        self._chance, self._half, self._desk = random.Random(seed), seed % 2, Desk()
        self._tickets = [self._ticket() for _ in range(tickets)]

    def write(self) -> Desk:
        for kind in KINDS[self._half :: 2]:
            self._hide_identifiers(kind)
        self._hide_rare_words()
        self._hide_people()
        self._ask_questions()
        self._ask_nonsense()
        for number, ticket in enumerate(self._tickets):
            self._desk.documents.append((str(number), ticket.title, " ".join(ticket.sentences)))
            for first in range(0, len(ticket.sentences), SENTENCES_OF_REMARK):
                sentences = ticket.sentences[first : first + SENTENCES_OF_REMARK]
                self._desk.remarks.append((str(number), " ".join(sentences)))
        return self._desk

    def _ticket(self) -> Ticket:
        """Return a ticket. One in five is long enough for several chunks, and half have an
        identifier of some kind."""
        chance = self._chance
        topic = chance.choice(TOPICS)
        [length] = chance.choices((0, chance.randint(2, 6), chance.randint(20, 40)), (4, 4, 2))
        sentences = [
            chance.choice(topic.descriptions),
            *chance.choices(DATA["fill"], k=length),
            chance.choice(topic.remarks),
        ]
        for kind in chance.choices(KINDS[self._half :: 2], k=chance.choice((0, 0, 1, 2))):
            sentences.append(kind.sentence.format(self._identifier(kind)))
        sentences.append(f"Regards, {self._person()}.")
        return Ticket(topic, chance.choice(topic.titles), sentences)

    def _identifier(self, kind: IdentifierKind) -> str:
        signs = {"#": "123456789", "?": string.ascii_uppercase, "*": string.ascii_lowercase}
        return "".join(self._chance.choice(signs.get(sign, sign)) for sign in kind.form)

    def _person(self) -> str:
        return (
            f"{self._chance.choice(DATA['first_names'])} {self._chance.choice(DATA['last_names'])}"
        )

    def _hide(self, sentence: str, count: int) -> None:
        """Write a sentence into some tickets, between any two of theirs."""
        for ticket in self._chance.sample(self._tickets, count):
            ticket.sentences.insert(self._chance.randint(1, len(ticket.sentences)), sentence)

    def _having(self, *texts: str) -> frozenset[str]:
        """Return the ids of the tickets that have all these texts, each between two words."""
        forms = [re.compile(rf"(?<!\w){re.escape(text)}(?!\w)") for text in texts]
        ids = set[str]()
        for number, ticket in enumerate(self._tickets):
            whole = " ".join(ticket.sentences)
            if all(form.search(whole) for form in forms):
                ids.add(str(number))
        return frozenset(ids)

    def _ask(self, kind: str, text: str, right: frozenset[str]) -> None:
        self._desk.queries.append(DeskQuery(kind, text, right))

    def _hide_identifiers(self, kind: IdentifierKind) -> None:
        for identifier in sorted({self._identifier(kind) for _ in range(IDENTIFIERS_OF_KIND)}):
            self._hide(kind.sentence.format(identifier), self._chance.randint(1, MAX_RIGHT))
            right = self._having(identifier)
            self._ask("identifier", identifier, right)
            for word in kind.words:
                self._ask("identifier and word", f"{word} {identifier}", right)

    def _hide_rare_words(self) -> None:
        """Hide each word alone, and some pairs together."""
        words = DATA["rare_words"][self._half :: 2]
        pairs = list(zip(words[::2], words[1::2], strict=True))
        for word in words:
            self._hide(f"There was a {word} in it.", self._chance.randint(1, MAX_RIGHT))
        for first, second in pairs:
            self._hide(f"Between the {first} and the window stood a {second}.", 1)
        for word in words:
            self._ask("rare words", word, self._having(word))
        for first, second in pairs:
            self._ask("rare words", f"{second} {first}", self._having(first, second))

    def _hide_people(self) -> None:
        """Hide some names. Their first and last names stand in many other tickets."""
        people = {self._person() for _ in range(PEOPLE)}
        for person in sorted(people):
            self._hide(f"Spoke with {person} about it.", TICKETS_OF_PERSON)
            right = self._having(person)
            self._ask("name", person, right)
            self._ask("quoted name", f'"{person}"', right)

    def _ask_questions(self) -> None:
        for topic in TOPICS:
            right = [
                str(number) for number, ticket in enumerate(self._tickets) if ticket.topic is topic
            ]
            for question in topic.questions[self._half :: 2]:
                self._ask("question", question, frozenset(right))

    def _ask_nonsense(self) -> None:
        for text in foreign_queries(self._half):
            self._ask("nonsense", text, frozenset())


def foreign_queries(half: int) -> list[str]:
    """Return 210 queries of one half of the subjects that neither the desk nor the collections of
    the benchmarks have.

    Many have a word that these have, such as "history of" or "price of".
    """
    found = list[str]()
    for subject in DATA["subjects"][half::2]:
        found += [pattern.format(subject) for pattern in DATA["patterns"]]
    return found


def make_desk(tickets: int, seed: int) -> Desk:
    """Return a desk of so many tickets, with some 550 queries. It is the same for the same seed.

    make_desk(600, JUDGING).queries[0]  # DeskQuery("identifier", "1127-58-9", frozenset({"17",
    "312"}))
    """
    return Writer(tickets, seed).write()
