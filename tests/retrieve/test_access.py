"""Nobody finds what is not for them: random searches, filters and reads by random callers, over every channel."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pytest

from rag_index.documents.access import access_part
from rag_index.errors import DocumentNotFound, SettingsError, StoreError
from rag_index.retrieve import ALL_GROUPS, Retriever
from tests.retrieve.desk import Desk

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect"),
    pytest.mark.filterwarnings("ignore:Local mode performs exact"),
]

GROUPS = ["staff", "board", "audit", "a,b", "7", "Grüße", "STAFF"]
WORDS = "printer network password invoice keyboard server monitor license update backup account mail".split()
SIZE = 40
ACCESS = 'access = "acl"'


@dataclass(frozen=True)
class Secret:
    """A document: its words, which are nowhere else, say whose it is."""

    index: str
    number: int
    groups: tuple[str, ...] | None
    """None in an index that is open to everybody."""

    @property
    def mark(self) -> str:
        return f"SECRET{self.index}{self.number}X"

    def is_for(self, groups: Any) -> bool:
        if self.groups is None or groups is ALL_GROUPS:
            return True
        given = [groups] if isinstance(groups, str) else groups or ()
        return not set(given).isdisjoint(self.groups)


def make_secrets() -> list[Secret]:
    chance = random.Random(7)
    secrets = [Secret("titles", number, None) for number in range(SIZE)]
    for index in ("comments", "solutions"):
        for number in range(SIZE):
            secrets.append(Secret(index, number, tuple(sorted(chance.sample(GROUPS, chance.choice([0, 1, 1, 2, 3]))))))
    return secrets


SECRETS = make_secrets()


def rows(index: str) -> list[tuple[Any, str, dict[str, Any]]]:
    """Return the documents of an index, of one to four chunks."""
    found = []
    for one in (secret for secret in SECRETS if secret.index == index):
        chance = random.Random(one.mark)
        text = "\n\n".join(
            f"{one.mark} {' '.join(chance.choices(WORDS, k=12))}." for _ in range(chance.choice([1, 1, 2, 4]))
        )
        payload: dict[str, Any] = {"priority": chance.choice(["low", "high"]), "author": one.mark, "number": one.number}
        payload |= {"tenant": chance.choice(["acme", "other"])}
        access = {} if one.groups is None else {"_rag": access_part(one.groups)}
        found.append((one.number, text, {**payload, **access}))
    return found


@pytest.fixture
def guarded(empty: Desk) -> Desk:
    """Two indexes with access, one of them with a required filter too, and one without."""
    required = f'{ACCESS}\nrequired_filter = {{ tenant = "acme" }}'
    empty.more = {"comments": ACCESS, "solutions": required}
    empty.write()
    return empty.fill({name: rows(name) for name in empty.names})


@pytest.fixture
def retriever(guarded: Desk) -> Iterator[Retriever]:
    with guarded.retriever() as retriever:
        yield retriever


def random_groups(chance: random.Random) -> Any:
    kind = chance.randrange(8)
    if kind == 0:
        return None
    if kind == 1:
        return chance.choice([[], (), "", [""], frozenset()])
    if kind == 2:
        return chance.choice(GROUPS)
    if kind == 3:
        return chance.choice([["nobody"], ["staff "], ["a"], ["*"], ["null"], ['["staff"]'], ["Staff"]])
    return chance.sample(GROUPS, chance.randint(1, 3))


def random_filter(chance: random.Random, secret: Secret) -> Any:
    return chance.choice(
        [
            None, None, {"author": secret.mark}, {"number": secret.number}, {"priority": ["low", "high"]},
            {"number": {"gte": 0}}, {"author": {"exists": True}}, {"author": {"not": "nobody"}}, "tenant=acme,other",
            {"tenant": "other"}, {"_rag.groups": "staff"}, {"_rag.key": str(secret.number)}, {"acl": "staff"},
            {"_rag": {"exists": True}},
        ]
    )  # fmt: skip


async def ask(retriever: Retriever, chance: random.Random, groups: Any) -> str:
    """Do something as a caller of these groups; return all that the caller is told."""
    secret = chance.choice(SECRETS)
    try:
        if chance.random() < 0.3:
            found = await retriever.document(secret.index, str(secret.number), groups=groups)
            assert [chunk.chunk for chunk in found.chunks] == list(range(len(found.chunks)))
            return json.dumps(asdict(found), ensure_ascii=False)
        query = chance.choice([secret.mark, " ".join(chance.choices(WORDS, k=3)), f"{secret.mark} printer"])
        result = await retriever.search(
            query,
            indexes=chance.choice([None, [secret.index], ["comments", "solutions"]]),
            limit=chance.choice([1, 5, 100, 1000]),
            filter=random_filter(chance, secret),
            groups=groups,
            dense_weight=chance.choice([None, 0.0, 0.5, 1.0]),
            fusion=chance.choice([None, "rank"]),
        )
        return json.dumps({**result.to_json(explain=True), "all": asdict(result)}, ensure_ascii=False, default=str)
    except (DocumentNotFound, SettingsError, StoreError) as error:
        return repr(error)


def _in_reach(one: Secret) -> bool:
    """Return whether the required filter lets the document through."""
    return one.index != "solutions" or TENANTS[one.number] == "acme"


TENANTS = {number: payload["tenant"] for number, _, payload in rows("solutions")}


async def check(retriever: Retriever, number: int, seed: int) -> int:
    """Ask `number` times and return how many documents were seen; no answer tells of what the caller may not see."""
    chance = random.Random(seed)
    seen = 0
    for _ in range(number):
        own = random_groups(chance)
        told = await ask(retriever, chance, own)
        for one in SECRETS:
            if one.mark in told:
                assert one.is_for(own), (one, own, told)
                assert _in_reach(one), (one, own)
                seen += 1
    return seen


def test_random_callers_see_what_is_for_them_and_nothing_else(retriever):
    assert asyncio.run(check(retriever, 150, seed=1)) > 300
    metrics = json.dumps(retriever.metrics().to_json()) + retriever.metrics().to_prometheus()
    assert not any(one.mark in metrics for one in SECRETS)


@pytest.mark.long
def test_ten_thousand_questions_of_random_callers(retriever):
    assert asyncio.run(check(retriever, 10_000, seed=2)) > 20_000
