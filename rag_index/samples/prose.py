"""Texts as people write them to a service desk: short and long, with traces of mail programs and web forms.

Only `random.Random.random` is used, because Python promises to keep that one generator, so a seed gives the same texts
in every version.
"""

from __future__ import annotations

import base64
import hashlib
import random
import string
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from rag_index.samples import vocabulary
from rag_index.samples.topics import TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Prose", "Subject", "subject_for"]

T = TypeVar("T")
_Template = tuple[str | tuple[str, ...], ...]
"""Literal texts, and pools from which one text is picked."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The subject of a ticket and the language of its author, as templates to fill."""

    language: str
    titles: tuple[_Template, ...]
    symptoms: tuple[_Template, ...]
    steps: tuple[_Template, ...]
    foreign: tuple[_Template, ...]
    """Sentences in the author's language; none for English."""


def _compiled(templates: Iterable[str]) -> tuple[_Template, ...]:
    return tuple(_template(text) for text in templates)


def _template(text: str) -> _Template:
    parts: list[str | tuple[str, ...]] = []
    for literal, slot, _, _ in string.Formatter().parse(text):
        if literal:
            parts.append(literal)
        if slot:
            parts.append(vocabulary.POOLS[slot])
    return tuple(parts)


_LANGUAGES = ("en",) * 45 + ("de",) * 8 + ("fr", "fr", "el", "el", "ru", "ru", "ar", "ar", "zh", "zh", "ja")
_ENGLISH = tuple(
    Subject("en", _compiled(topic.titles), _compiled(topic.symptoms), _compiled(topic.steps + topic.causes), ())
    for topic in TOPICS
)
_FOREIGN = {language: _compiled(sentences) for language, sentences in vocabulary.FOREIGN.items()}
_SUBJECTS = tuple(
    replace(about, language=language, foreign=_FOREIGN.get(language, ()))
    for language in _LANGUAGES
    for about in _ENGLISH
)
_GENERIC = _compiled(vocabulary.GENERIC)
_GREETINGS = _compiled(vocabulary.GREETINGS)
_CLOSINGS = _compiled(vocabulary.CLOSINGS)
_TRACES = _compiled(vocabulary.TRACES)
_ADDENDA = _compiled((" - {dept}", " ({app} {version})", " [{ticket}]", " since {day}", ", user {user}", ", {host}"))
_PREFIXES = ("RE: ", "FW: ", "AW: ", "WG: ", "[EXTERNAL] ", "URGENT: ", "Fwd: Re: ")
_HEADERS = _compiled(
    (
        (
            "________________________________\nFrom: {first} <{user}@example.com>\nSent: {day} {time}\nTo: Service Desk"
            " <desk@example.org>\nCc: {user}@example.org; {user}@example.com\nSubject: RE: {app}, {ticket}\n"
        ),
        (
            "-----Ursprüngliche Nachricht-----\nVon: {first} [mailto:{user}@example.org]\nGesendet: {day}, {time}\n"
            "An: Service Desk\nBetreff: AW: {ticket}\n"
        ),
        "On {day} at {time}, {first} <{user}@example.com> wrote:\n",
    )
)
_SHORT_TITLES = ("Problem", "Question", "Urgent!!", "Password reset", "Printer", "(no subject)", "Hilfe", "New laptop")

_NOTHING = (None, None, None, None, "", "", "", " ", "\r\n\r\n", " \t ", "\u00a0")
_SENTENCES = (1,) * 16 + (2,) * 12 + (3,) * 10 + (4,) * 8 + (5,) * 6 + (6, 6, 6, 7, 7, 8, 8, 9, 11, 13, 16, 22)
_ENTITIES = {"ä": "&auml;", "ö": "&ouml;", "ü": "&uuml;", "ß": "&szlig;", '"': "&quot;", "'": "&#39;"}
_ZERO_WIDTH = ("\u200b", "\ufeff", "\u00ad", "\u200d", "\u2060", "\u200e")


def subject_for(value: int) -> Subject:
    """Return one of all subjects; evenly spread values give each language its share."""
    return _SUBJECTS[value % len(_SUBJECTS)]


class Prose:
    """An endless stream of texts; equal seeds give equal streams."""

    __slots__ = ("_random",)

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed).random  # noqa: S311 - made-up texts, no secrets

    def below(self, limit: int) -> int:
        """Return an integer from 0 to limit - 1."""
        return int(self._random() * limit)

    def chance(self, share: float) -> bool:
        """Return True in this share of calls."""
        return self._random() < share

    def pick(self, choices: Sequence[T]) -> T:
        """Return one of the choices, all equally likely."""
        return choices[int(self._random() * len(choices))]

    def title(self, about: Subject) -> str | None:
        """Return a title of about 60 characters; sometimes it is empty, or a stock phrase."""
        roll = self._random()
        if roll < 0.016:
            return self.pick(_NOTHING)
        if roll < 0.046:
            return self.pick(_SHORT_TITLES)
        if about.foreign and roll < 0.5:
            return self._fill(self.pick(about.foreign))
        text = self._fill(self.pick(about.titles))
        if self.chance(0.15):
            text = self.pick(_PREFIXES) + text
        turn = self.below(len(_ADDENDA))
        while len(text) < 40 or (len(text) < 90 and self.chance(0.5)):
            text += self._fill(_ADDENDA[turn % len(_ADDENDA)])
            turn += 1
        return text if roll > 0.06 else f"{self.pick(vocabulary.EMOJI)} {text}"

    def body(self, about: Subject, *, steps: bool, scale: int = 1, threads: bool = True) -> str | None:
        """Return a text of any length: nothing (1.6%), a stock phrase (3%), a thread of mails (0.25%), else a letter.

        With `steps`, most sentences say what was done instead of what is wrong. `scale` multiplies their number.
        """
        roll = self._random()
        if roll < 0.016:
            return self.pick(_NOTHING)
        if roll < 0.046:
            return self.pick(vocabulary.CANNED)
        if roll < 0.0485 and threads:
            return self._thread(about)
        return self._styled(self._letter(about, self.pick(_SENTENCES) * scale, steps=steps))

    def sentences(self, about: Subject, count: int, *, steps: bool) -> str:
        """Return sentences on one line; no two in a row come from the same template."""
        first = self.below(720)  # divisible by 1 to 6 and some more, so all members of such a pool are equally likely
        return " ".join([self._sentence(about, turn, steps=steps) for turn in range(first, first + count)])

    def _fill(self, template: _Template) -> str:
        rand = self._random
        return "".join([part if isinstance(part, str) else part[int(rand() * len(part))] for part in template])

    def _sentence(self, about: Subject, turn: int, *, steps: bool) -> str:
        roll = self._random()
        if about.foreign and roll < 0.7:
            pool = about.foreign
        elif roll > 0.6:
            pool = _GENERIC
        else:
            pool = about.steps if steps == (roll > 0.15) else about.symptoms
        return self._fill(pool[turn % len(pool)])

    def _letter(self, about: Subject, count: int, *, steps: bool) -> list[str]:
        """Return paragraphs, sometimes with a greeting, a stack trace, a closing or a disclaimer."""
        roll = self._random()
        paragraphs = [self._fill(self.pick(_GREETINGS))] if roll < 0.4 else []
        for start in range(0, count, 4):
            paragraphs.append(self.sentences(about, min(4, count - start), steps=steps))
        if 0.3 < roll < 0.35:
            paragraphs.append(self._fill(self.pick(_TRACES)))
        if 0.35 < roll < 0.365:
            paragraphs.append(self._long_word())
        if roll < 0.3 or roll > 0.93:
            paragraphs.append(self._fill(self.pick(_CLOSINGS)))
        if roll < 0.07:
            paragraphs.append(self.pick(vocabulary.DISCLAIMERS))
        return paragraphs

    def _styled(self, paragraphs: list[str]) -> str:
        """Return the paragraphs joined as one of the programs joins them that people write with."""
        roll = self._random()
        if roll < 0.62:
            text = "\n\n".join(paragraphs)
        elif roll < 0.76:
            text = "\r\n".join(paragraphs)
        elif roll < 0.9:
            text = _html(paragraphs, styled=roll < 0.82)
        elif roll < 0.93:
            text = "\t" + "\n\t".join(paragraphs)
        else:
            text = " ".join(paragraphs)
        return self._odd(text, roll * 100 % 1)

    def _odd(self, text: str, roll: float) -> str:
        """Return the text, sometimes with invisible characters, emoji, trailing blanks, or in capitals."""
        if roll < 0.85:
            return text
        if roll < 0.91:
            return f"{text} {self.pick(vocabulary.EMOJI)}"
        if roll < 0.93:
            return text.replace(" ", f" {self.pick(_ZERO_WIDTH)}", 1 + self.below(4))
        if roll < 0.95:
            return text.replace("ü", "u\u0308").replace(" ", "\u00a0", 2)
        if roll < 0.96:
            return text.upper()
        return text + self.pick(("   ", "\r\n\r\n\r\n", "\n\n--\n", " ...", "!!!!!", "\t"))

    def _long_word(self) -> str:
        """Return an encoded picture or a tracking link: hundreds or thousands of characters without a blank."""
        blocks = 3 + self.below(4 if self.chance(0.6) else 60)
        start = self.below(1 << 48)
        raw = b"".join(hashlib.sha512(b"%d/%d" % (start, i)).digest() for i in range(blocks))
        if blocks < 7:
            return f"https://links.example.com/?url=https%3A%2F%2Fportal.example.org%2F&data={raw.hex()}"
        return f"data:image/png;base64,{base64.b64encode(raw).decode()}"

    def _thread(self, about: Subject) -> str:
        """Return a letter with all earlier ones below it, 20,000 to 60,000 characters in total."""
        target = 20_000 + int(self._random() ** 2 * 40_000)
        end, quoting = self.pick(("\n", "\r\n")), self.chance(0.5)
        letters, size, depth = ["\n\n".join(self._letter(about, 2, steps=True))], 0, 0
        while size < target:
            depth += 1
            letter = "\n\n".join(self._letter(about, self.pick(_SENTENCES), steps=depth % 2 == 0))
            quoted = self._fill(self.pick(_HEADERS)) + letter + "\n\n" + self.pick(vocabulary.DISCLAIMERS)
            if quoting:
                prefix = "> " * min(depth, 8)
                quoted = prefix + quoted.replace("\n", f"\n{prefix}")
            letters.append(quoted)
            size += len(quoted)
        return "\n\n".join(letters).replace("\r\n", "\n").replace("\n", end)


def _html(paragraphs: list[str], *, styled: bool) -> str:
    """Return the paragraphs as HTML, as a web form or a mail program (`styled`) stores it."""
    text = "\n".join(paragraphs)
    for character, entity in _ENTITIES.items():
        text = text.replace(character, entity)
    if not styled:
        return text.replace("\r\n", "\n").replace("\n", "<br>\r\n").replace(". ", ".&nbsp; ")
    opening = '<p style="margin:0cm;font-size:11.0pt;font-family:&quot;Calibri&quot;,sans-serif">'
    return "".join(f"{opening}{line or '&nbsp;'}</p>" for line in text.split("\n"))
