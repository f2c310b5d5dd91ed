"""Documents that are for groups, and callers of random groups: whatever a caller is told shows what
it was about."""

import random
from dataclasses import dataclass
from typing import Any

from rag_index.core.documents.groups import access_part
from rag_index.search import ALL_GROUPS
from tests.project import WORDS
from tests.search.desk import Desk

GROUPS = ["staff", "board", "audit", "a,b", "7", "Grüße", "STAFF"]
ACCESS = 'access = "acl"'
REQUIRED = f'{ACCESS}\nrequired_filter = {{ tenant = "acme" }}'
INDEXES = {"titles": "", "comments": ACCESS, "solutions": REQUIRED}
CHANCE = random.Random(7)


@dataclass(frozen=True)
class Secret:
    """A document. Its mark, which no other document has, is in its text and in its payload."""

    index: str
    number: int
    groups: tuple[str, ...] | None
    """None in an index that is open to everybody."""
    tenant: str

    @property
    def mark(self) -> str:
        return f"SECRET{self.index}{self.number}X"

    def is_for(self, groups: Any) -> bool:
        """Return whether a caller of these groups may see it."""
        if self.index == "solutions" and self.tenant != "acme":
            return False
        if self.groups is None or groups is ALL_GROUPS:
            return True
        return not {*([groups] if isinstance(groups, str) else groups or ())}.isdisjoint(
            self.groups
        )


def make_secret(chance: random.Random, index: str, number: int) -> Secret:
    groups = (
        tuple(sorted(chance.sample(GROUPS, chance.choice([0, 1, 1, 2, 3]))))
        if INDEXES[index]
        else None
    )
    return Secret(index, number, groups, chance.choice(["acme", "other"]))


SECRETS = [make_secret(CHANCE, index, number) for index in INDEXES for number in range(40)]


def rows(index: str) -> list[tuple[Any, str, dict[str, Any]]]:
    """Return the documents of an index, of one to four chunks."""
    found = []
    for one in (secret for secret in SECRETS if secret.index == index):
        chance = random.Random(one.mark)
        chunks = chance.choice([1, 1, 2, 4])
        text = "\n\n".join(
            f"{one.mark} {' '.join(chance.choices(WORDS, k=12))}." for _ in range(chunks)
        )
        payload: dict[str, Any] = {
            "priority": chance.choice(["low", "high"]),
            "author": one.mark,
            "number": one.number,
        }
        access = {} if one.groups is None else {"_rag": access_part(one.groups)}
        found.append((one.number, text, {**payload, "tenant": one.tenant, **access}))
    return found


def guard(desk: Desk) -> Desk:
    """Fill a desk: two indexes with access, one of them with a required filter too, and one that is
    open."""
    desk.more = {
        name: f'{access}\npayload_indexes = {{ author = "keyword" }}'
        for name, access in INDEXES.items()
    }
    desk.write()
    return desk.fill({name: rows(name) for name in INDEXES})


def random_groups(chance: random.Random) -> Any:
    """Return groups as a caller may give them: none, one, several, or some that are like those of
    documents."""
    kind = chance.randrange(8)
    if kind == 0:
        return None
    if kind == 1:
        return chance.choice([[], (), "", [""], frozenset()])
    if kind == 2:
        return chance.choice(GROUPS)
    if kind == 3:
        return chance.choice(
            [["nobody"], ["staff "], ["a"], ["*"], ["null"], ['["staff"]'], ["Staff"]]
        )
    return chance.sample(GROUPS, chance.randint(1, 3))


def random_filter(chance: random.Random, secret: Secret) -> dict[str, Any] | None:
    """Return a filter that fits a document, many, or none, or that a caller must not use."""
    return chance.choice(
        [
            None,
            None,
            {"author": secret.mark},
            {"number": secret.number},
            {"priority": ["low", "high"]},
            {"number": {"gte": 0}},
            {"author": {"exists": True}},
            {"author": {"not": "nobody"}},
            {"tenant": "other"},
            {"tenant": ["acme", "other"]},
            {"_rag.groups": "staff"},
            {"_rag.key": str(secret.number)},
            {"acl": "staff"},
            {"_rag": {"exists": True}},
        ]
    )


def check_told(told: str, groups: Any) -> int:
    """Check that a caller of these groups is told of nothing that is not for them; return how many
    documents are."""
    about = [one for one in SECRETS if one.mark in told]
    for one in about:
        assert one.is_for(groups), (one, groups, told)
    return len(about)
