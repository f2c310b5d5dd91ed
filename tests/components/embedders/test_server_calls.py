"""Texts and queries shared out to several hosts: who gets them, who stands in for whom, and whose
fault a failure is. The hosts live in this process and time is virtual, so every outcome below is
the same on any machine."""

import asyncio
import random
from contextlib import suppress

import numpy as np
import pytest

from rag_index.components.embedders.servers import QUERY_PATIENCE, QueryCall
from rag_index.components.hosts.endpoint import KnownModel
from rag_index.components.hosts.host_pool import HostPool
from rag_index.core.documents.work import Work
from rag_index.core.recovery import downtime
from rag_index.core.settings import EmbedderSettings
from rag_index.errors import (
    BadVectors,
    EmbedderUnavailable,
    HostUnreachable,
    ModelChanged,
    RateLimited,
    TextEndsServer,
    TextRefused,
    TextTooLong,
)
from tests.fakes.hosts import HANG, ILL, PLAIN_TEXT, FakeHosts, assert_own_vectors
from tests.fakes.ollama import vector_of

TEXTS = [f"document {number} " + "word " * (number % 5) for number in range(200)]
POISON, REFUSED = "poison in this one", TextRefused("invalid input")
TWENTY = [f"query {number}" for number in range(20)]
PREFIX = "search_query: "


@pytest.fixture(autouse=True)
def exact_rests(monkeypatch):
    """Without chance, so that times are the same in each run."""
    monkeypatch.setattr("rag_index.components.hosts.host.jittered", lambda seconds: seconds)


@pytest.fixture
def warm():
    """Hosts that have all embedded a plain text, so that a fault meets the next text. Their loops
    are closed."""
    made = []

    def make(count, **settings):
        made.append(hosts := FakeHosts(count, **settings))
        hosts.seconds_to_embed(TEXTS)
        for host in hosts.hosts:
            host.sent.clear()
        return hosts

    yield make
    for hosts in made:
        hosts.loop.close()


def test_a_host_that_hangs_keeps_its_batches_only_until_the_timeout(warm):
    hosts = warm(3, timeout=5.0)
    hosts[0].always("", HANG)
    assert 5 < hosts.seconds_to_embed(TEXTS) < 6


@pytest.mark.parametrize("patience", [600.0, 10.0])
@pytest.mark.parametrize("count", [1, 2])
def test_the_seconds_in_which_no_server_answers_are_measured_in_the_call_that_embeds(
    warm, count, patience
):
    """They count for no rate. A call that gives up is made again."""
    hosts = warm(count, seconds_per_text=[0.01] * count, patience=patience)
    for host in hosts.hosts:
        hosts.at(0.3, host.stop)
        hosts.at(120.0, host.start)
    entries = None
    while entries is None:
        began = hosts.loop.time()
        with downtime() as down, suppress(EmbedderUnavailable):
            entries = hosts.embed(TEXTS)
        if entries is None:
            assert down.seconds == 0.0
            hosts.pass_time(1.0)
    assert_own_vectors(entries, TEXTS)
    took = hosts.loop.time() - began
    assert took - down.seconds == pytest.approx(0.01 * len(TEXTS) / count, abs=0.5)
    assert (took > 100) == (patience > 100)


def test_the_time_in_which_another_server_goes_on_is_no_downtime(warm):
    hosts = warm(2, seconds_per_text=[0.01, 0.01])
    hosts[0].stop()
    with downtime() as down:
        assert_own_vectors(hosts.embed(TEXTS), TEXTS)
    assert down.seconds == 0.0


def test_a_wedged_host_is_found_out_after_one_request_and_one_check(warm):
    hosts = warm(1, timeout=60.0, patience=30.0)
    hosts[0].always("", HANG)
    began = hosts.loop.time()
    with pytest.raises(EmbedderUnavailable, match="gave no answer in time"):
        hosts.embed(TEXTS)
    assert 2 * 60 <= hosts.loop.time() - began < 2 * 60 + 30


def test_what_a_host_made_is_made_again_if_it_goes_away_before_its_model_was_compared(warm):
    """Its model may have been pulled again meanwhile: nobody can tell any more of which one its
    vectors are."""
    hosts = warm(2)
    hosts.at(0.05, lambda: setattr(hosts[0], "digest", "e2" * 32))
    hosts.at(0.15, hosts[0].stop)
    assert_own_vectors(hosts.embed(TEXTS), TEXTS)
    assert hosts[0].others_embedded > 0


def test_a_slow_host_gets_less_at_a_time_until_it_answers_in_time(warm):
    """A server on a processor: 64 texts take it twice as long as a request may."""
    hosts = warm(1, timeout=60.0, batch_texts=64)
    hosts[0].seconds_per_text = 2.0
    assert_own_vectors(hosts.embed(TEXTS), TEXTS)
    hosts[0].sent.clear()
    assert hosts.seconds_to_embed(TEXTS) < 2.0 * len(TEXTS) + 10, "no request timed out"


@pytest.mark.parametrize(
    "error", [RateLimited("slow down", 1.0), HostUnreachable("accepts no connection")]
)
def test_a_host_that_pauses_or_accepts_no_connection_never_convicts_a_text(warm, error):
    hosts = warm(1)
    hosts[0].outcomes(POISON, [error] * 12)
    assert_own_vectors(hosts.embed([POISON]), [POISON])


@pytest.mark.parametrize("error", [ILL, REFUSED, BadVectors("NaN")])
@pytest.mark.parametrize("plain", [[ILL, None] * 5, [None, None, ILL, None, None, ILL, None, None]])
def test_a_host_that_fails_on_the_plain_text_too_clears_the_text(warm, error, plain):
    """Where it fails on the plain text as well, the host is the one that is ill, whatever was
    proved before."""
    hosts = warm(1)
    hosts[0].outcomes(POISON, [error] * 5)
    hosts[0].outcomes(PLAIN_TEXT, plain)
    assert_own_vectors(hosts.embed([POISON]), [POISON])
    assert hosts[0].requests_with(POISON) == 6


@pytest.mark.parametrize("error", [ILL, HANG, REFUSED])
@pytest.mark.parametrize("count", [1, 3])
def test_a_text_that_fails_between_plain_texts_is_at_fault(warm, error, count):
    hosts = warm(count)
    for host in hosts.hosts:
        host.always(POISON, error)
    entry = hosts.embed([POISON])[0]
    assert type(entry) is (
        TextEndsServer if isinstance(error, EmbedderUnavailable) else type(error)
    )
    between_plain_texts = 0
    for host in hosts.hosts:
        triples = zip(host.sent, host.sent[1:], host.sent[2:], strict=False)
        between_plain_texts += sum(
            triple == ([PLAIN_TEXT], [POISON], [PLAIN_TEXT]) for triple in triples
        )
    assert between_plain_texts >= 3
    assert sum(host.requests_with(POISON) for host in hosts.hosts) <= (4 if count == 1 else 6)


def test_a_text_that_failed_waits_for_another_host_and_does_not_go_to_the_same_again(warm):
    hosts = warm(2, batch_texts=1)
    hosts[0].always(POISON, ILL)
    hosts[1].seconds_per_request = 5.0  # time enough to fail on the first host again and again
    texts = [POISON, "another text"]
    assert_own_vectors(hosts.embed(texts), texts)
    assert [host.requests_with(POISON) for host in hosts.hosts] == [1, 1]


def test_a_trial_ends_when_its_host_goes_down(warm):
    hosts = warm(2)
    hosts[0].outcomes(POISON, [ILL])
    hosts[1].outcomes(POISON, [ILL])
    hosts.at(0.005, hosts[1].stop)  # where the second failure was
    assert_own_vectors(hosts.embed([POISON]), [POISON])
    assert hosts[0].embedded > 0


def test_a_text_that_takes_the_server_down_each_time_is_given_up_after_ten_failures(warm):
    hosts = warm(1)
    hosts[0].always(POISON, ILL)
    hosts[0].outcomes(PLAIN_TEXT, [ILL, None] * 100)
    texts = [*TEXTS, POISON]
    entries = hosts.embed(texts)
    assert isinstance(entries[-1], TextRefused)
    assert_own_vectors(entries[:-1], TEXTS)
    assert sum(POISON in texts for texts in hosts[0].sent) == 10


@pytest.mark.parametrize("seed", range(2))
def test_hosts_that_fail_in_turn_lose_nothing(warm, seed):
    """One host after the other stops in the middle of its work, and fails on its first texts when
    it is back."""
    hosts, chance, at = (
        warm(3, batch_texts=1, seconds_per_text=[0.05] * 3),
        random.Random(seed),
        0.0,
    )
    for turn in range(200):
        host = hosts[turn % 3]
        hosts.at(at, host.stop)
        hosts.at(at + 0.2, host.start)
        hosts.at(at + 0.2, lambda host=host: host.outcomes("document", [ILL]))
        at += chance.uniform(0.2, 0.6)
    for _ in range(4):
        assert_own_vectors(hosts.embed(TEXTS), TEXTS)
    assert hosts.stats.retries > 0


# Calls in line, and calls that are made again


def test_calls_share_the_servers_in_the_order_in_which_they_come(warm):
    """The second one begins with the room that the last texts of the first one leave."""
    hosts = warm(2)
    first, second = ([f"{name} {text}" for text in TEXTS] for name in ("first", "second"))
    for entries, texts in zip(hosts.embed_at_once([first, second]), (first, second), strict=True):
        assert_own_vectors(entries, texts)
    for host in hosts.hosts:
        order = [texts[0].split()[0] for texts in host.sent if texts != [PLAIN_TEXT]]
        assert order == sorted(order)
        assert set(order) == {"first", "second"}


def test_what_may_be_at_fault_is_sent_with_nothing_else_under_way_at_its_server(warm):
    hosts = warm(2, batch_texts=1)
    for host in hosts.hosts:
        host.always(POISON, REFUSED)
        host.beside.clear()
    [[entry], others] = hosts.embed_at_once([[POISON], TEXTS])
    assert isinstance(entry, TextRefused)
    assert_own_vectors(others, TEXTS)
    beside = [beside for host in hosts.hosts for text, beside in host.beside if text == POISON]
    assert sum(number > 0 for number in beside) <= 1, "only before it failed"
    assert len(beside) > 3


def embed_again(hosts: FakeHosts, texts: list[str], *, pause: float = 5.0) -> list:
    """Make a call again, as a step of a run does, until it has an entry for each text."""
    for _ in range(100):
        with suppress(EmbedderUnavailable):
            return hosts.embed(texts)
        hosts.pass_time(pause)
    raise AssertionError("it never came to an end")


def test_a_call_that_is_made_again_goes_on_from_where_it_gave_up(warm):
    hosts = warm(1, seconds_per_text=[0.01], patience=10.0)
    before = hosts[0].embedded
    hosts.at(1.0, hosts[0].stop)
    hosts.at(60.0, hosts[0].start)
    with pytest.raises(EmbedderUnavailable):
        hosts.embed(TEXTS)
    done = hosts[0].embedded - before
    assert done > 50
    assert_own_vectors(embed_again(hosts, TEXTS), TEXTS)
    assert hosts[0].embedded - before == len(TEXTS), "none was embedded twice"


def test_the_halves_of_a_call_that_gave_up_take_over_what_it_has(warm):
    hosts = warm(1, seconds_per_text=[0.01], patience=10.0)
    before = hosts[0].embedded
    hosts.at(1.0, hosts[0].stop)
    hosts.at(60.0, hosts[0].start)
    with pytest.raises(EmbedderUnavailable):
        hosts.embed(TEXTS)
    hosts.pass_time(60.0)
    for half in (TEXTS[:100], TEXTS[100:]):
        assert_own_vectors(hosts.embed(half), half)
    assert hosts[0].embedded - before == len(TEXTS), "none was embedded twice"


def test_what_a_call_knows_is_kept_while_others_give_up_before_a_server_takes_their_texts(warm):
    """A shard waits behind the other shards of its process, each of which is tried several times."""
    hosts = warm(1, seconds_per_text=[0.01], patience=10.0)
    before = hosts[0].embedded
    hosts.at(1.0, hosts[0].stop)
    with pytest.raises(EmbedderUnavailable):
        hosts.embed(TEXTS)
    for number in range(20):
        with pytest.raises(EmbedderUnavailable):
            hosts.embed([f"text of shard {number}"])
    hosts[0].start()
    assert_own_vectors(embed_again(hosts, TEXTS), TEXTS)
    assert hosts[0].embedded - before == len(TEXTS), "none was embedded twice"


def test_what_a_call_knows_is_kept_while_another_is_made_again_and_again(warm):
    """Each try of the other one goes on from its former try."""
    hosts = warm(1, seconds_per_text=[0.01], patience=10.0)
    hosts.at(1.0, hosts[0].stop)
    with pytest.raises(EmbedderUnavailable):
        hosts.embed(TEXTS)
    hosts[0].ended_by(POISON, back_after=20.0)
    hosts[0].start()
    for _ in range(6):
        with pytest.raises(EmbedderUnavailable):
            hosts.embed([POISON, "another text"])
        hosts.pass_time(30.0)
    before = hosts[0].embedded
    assert_own_vectors(embed_again(hosts, TEXTS), TEXTS)
    assert hosts[0].embedded - before < len(TEXTS), "not all were embedded twice"


def test_vectors_of_a_call_that_gave_up_count_only_if_the_model_is_still_the_same(warm):
    hosts = warm(1, seconds_per_text=[0.01], patience=10.0)
    hosts.at(1.0, hosts[0].stop)
    with pytest.raises(EmbedderUnavailable):
        hosts.embed(TEXTS)
    hosts[0].digest = "e2" * 32
    hosts[0].start()
    with pytest.raises(ModelChanged):
        hosts.embed(TEXTS)


def test_what_a_host_made_for_a_call_that_gave_up_is_made_again_if_it_stays_away(warm):
    hosts = warm(2, patience=10.0)
    hosts.at(0.05, lambda: setattr(hosts[0], "digest", "e2" * 32))
    for host in hosts.hosts:
        hosts.at(0.15, host.stop)
    with pytest.raises(EmbedderUnavailable):
        hosts.embed(TEXTS)
    assert hosts[0].others_embedded > 0
    hosts[1].start()
    assert_own_vectors(hosts.embed(TEXTS), TEXTS)


def test_the_deaths_that_a_text_causes_are_counted_over_calls_and_all_others_get_vectors_first(
    warm,
):
    hosts = warm(1, patience=10.0)
    hosts[0].ended_by(POISON, back_after=30.0)
    texts = [*TEXTS, POISON]
    entries = embed_again(hosts, texts)
    assert isinstance(entries[-1], TextEndsServer)
    assert_own_vectors(entries[:-1], TEXTS)
    assert hosts[0].requests_with(POISON) == 10
    with_poison = [number for number, sent in enumerate(hosts[0].sent) if POISON in sent]
    others = [
        number
        for number, sent in enumerate(hosts[0].sent)
        if POISON not in sent and sent != [PLAIN_TEXT]
    ]
    assert with_poison[5] > max(others), "once it is alone, no other waits for it"


class Callers:
    """Callers who ask fake hosts: `ask` a query each at some moment, `run` until all have their
    answer."""

    def __init__(self, hosts: FakeHosts) -> None:
        self.hosts, self.loop = hosts, hosts.loop
        self.settings = EmbedderSettings(kind="ollama", model="m", query_prefix=PREFIX)
        self.model = KnownModel("fake-embed", "d1" * 32, 8)
        self.pool = HostPool(
            hosts.hosts, self.model, in_flight=1, patience=QUERY_PATIENCE, for_queries=True
        )
        self.answered_at: dict[str, float] = {}

    def ask(self, *texts: str, at: float = 0.0) -> dict[str, asyncio.Task]:
        """Return the call of each query, which begins after `at` virtual seconds."""
        return {text: self.loop.create_task(self._answer(text, at)) for text in texts}

    async def _answer(self, text: str, at: float) -> np.ndarray | Exception:
        await asyncio.sleep(at)
        try:
            call = QueryCall([text], self.settings, self.model, Work(), prefix=PREFIX)
            await self.pool.run(call)
            entry = call.entries[text]
        except Exception as exc:
            entry = exc
        self.answered_at.setdefault(text, self.loop.time())
        return entry

    def run(self, *asked: dict[str, asyncio.Task]) -> None:
        self.began = self.loop.time()
        self.loop.run_until_complete(
            asyncio.wait([task for one in asked for task in one.values()], timeout=1000)
        )

    def answer(self, *texts: str) -> None:
        """Ask, and check that each query gets its own vector."""
        asked = self.ask(*texts)
        self.run(asked)
        assert_right(asked)

    def rest(self, seconds: float) -> None:
        """Let virtual time pass."""
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def close(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0.1))
        self.loop.close()

    def seconds(self, text: str) -> float:
        return self.answered_at[text] - self.began

    def sent(self, number: int) -> list[str]:
        """Return the queries that a host got, without the plain texts that try it out."""
        requests = [texts for texts in self.hosts[number].sent if texts != [PLAIN_TEXT]]
        return [text.removeprefix(PREFIX) for [text] in requests]


def assert_right(asked: dict[str, asyncio.Task]) -> None:
    for text, task in asked.items():
        assert np.array_equal(task.result(), np.asarray(vector_of(PREFIX + text), dtype=np.float32))


@pytest.fixture
def make():
    made = []

    def open_hosts(count, **settings):
        callers = Callers(FakeHosts(count, **{"seconds_per_text": [0.0] * count, **settings}))
        made.append(callers)
        for _ in range(2):  # every host has embedded a plain text
            callers.run(callers.ask(*(f"warm up {number}" for number in range(count))))
            callers.rest(1.0)
        callers.answered_at.clear()
        for host in callers.hosts.hosts:
            host.seconds_per_request = 0.1
            host.sent.clear()
        return callers

    yield open_hosts
    for callers in made:
        callers.close()


@pytest.mark.parametrize(
    "error", [TextRefused("invalid input"), TextTooLong("the input length exceeds")]
)
def test_a_bad_query_fails_alone(make, error):
    callers = make(2)
    for host in callers.hosts.hosts:
        host.always("bad", error)
    asked, bad = callers.ask(*TWENTY), callers.ask("a bad one")
    callers.run(asked, bad)
    assert_right(asked)
    assert isinstance(bad["a bad one"].result(), type(error))
    callers.answer("after it")


def test_a_host_that_hangs_holds_only_its_own_query_until_the_time_limit_and_is_used_again(make):
    callers = make(2, timeout=10.0)
    callers.hosts[0].outcomes("query 0", [HANG])
    stuck = callers.ask("query 0")
    later = [callers.ask(text, at=0.15 * number) for number, text in enumerate(TWENTY[1:], 1)]
    callers.run(stuck, *later)
    for one in (stuck, *later):
        assert_right(one)
    assert callers.sent(0) == ["query 0"]
    assert 10 < callers.seconds("query 0") < 10.5
    assert (
        max(callers.seconds(text) - 0.15 * number for number, text in enumerate(TWENTY[1:], 1))
        < 0.25
    )
    for _ in range(2):
        callers.rest(60)
        callers.hosts[0].sent.clear()
        callers.run(callers.ask(*TWENTY))
    assert callers.sent(0)


def test_if_all_hosts_are_down_every_query_says_why_and_the_next_one_tries_again(make):
    callers = make(2)
    for host in callers.hosts.hosts:
        host.stop()
    asked = callers.ask(*TWENTY)
    callers.run(asked)
    for task in asked.values():
        assert isinstance(task.result(), EmbedderUnavailable)
        assert "host0:11434 accepts no connection" in str(task.result())
    assert max(map(callers.seconds, TWENTY)) < 1
    callers.hosts[1].start()
    callers.answer("again")
    assert callers.seconds("again") < 0.25


@pytest.mark.parametrize("error", [ILL, RateLimited("slow down", 0.3)])
def test_a_query_is_sent_again_if_its_only_server_fails_for_a_moment(make, error):
    callers = make(1)
    callers.hosts[0].outcomes("query 0", [error])
    callers.answer("query 0")
    assert callers.seconds("query 0") < 1


def test_a_host_with_another_model_gets_no_query_until_it_has_the_right_one(make):
    callers = make(2)
    for host in callers.hosts.hosts:
        host.digest = "d2" * 32
    callers.rest(20)
    asked = callers.ask(*TWENTY)
    callers.run(asked)
    for task in asked.values():
        assert isinstance(task.result(), ModelChanged)
        assert "weights d2d2d2d2d2d2" in str(task.result())
    assert callers.sent(0) + callers.sent(1) == []
    callers.hosts[1].digest = "d1" * 32
    callers.answer("again")
    assert callers.sent(0) == []


def test_a_query_whose_caller_leaves_before_its_turn_is_not_sent(make):
    callers = make(1)
    first, given_up = callers.ask("first"), callers.ask("given up", at=0.01)
    callers.hosts.at(0.05, given_up["given up"].cancel)
    callers.run(first, given_up)
    callers.rest(1)
    assert callers.sent(0) == ["first"]


# The texts of a document that ended a server on another day


def test_a_text_that_ended_its_server_is_convicted_again_by_one_death_between_two_plain_texts(warm):
    hosts = warm(1)
    hosts[0].ended_by(POISON, back_after=30.0)
    [entry] = hosts.embed([POISON], one_by_one=True)
    assert isinstance(entry, TextEndsServer)
    assert hosts[0].sent == [[PLAIN_TEXT], [POISON], [PLAIN_TEXT]]
    assert_own_vectors(hosts.embed(TEXTS), TEXTS)


def test_a_document_without_its_deadly_text_gets_all_vectors_each_text_alone(warm):
    hosts = warm(1)
    assert_own_vectors(hosts.embed(TEXTS[:5], one_by_one=True), TEXTS[:5])
    assert sorted(hosts[0].sent) == sorted([[PLAIN_TEXT], *([text] for text in TEXTS[:5])])


def test_after_the_first_deadly_text_no_other_of_its_document_is_sent(warm):
    """The document fails as a whole. The longest text goes first."""
    hosts = warm(1)
    hosts[0].ended_by(POISON, back_after=30.0)
    texts = [f"{POISON} {'word ' * number}" for number in range(5)] + ["a harmless text"]
    entries = hosts.embed(texts, one_by_one=True)
    assert [type(entry) for entry in entries] == [TextEndsServer] * 6
    assert hosts[0].sent == [[PLAIN_TEXT], [texts[4]], [PLAIN_TEXT]]


@pytest.mark.parametrize("count", [2, 3])
def test_a_text_that_ended_a_server_ends_one_of_several(warm, count):
    """The plain text after that may be embedded by another one, after the death."""
    hosts = warm(count)
    for host in hosts.hosts:
        host.ended_by(POISON, back_after=30.0)
    [entry] = hosts.embed([POISON], one_by_one=True)
    assert isinstance(entry, TextEndsServer)
    sent = [texts for host in hosts.hosts for texts in host.sent]
    assert sent.count([POISON]) == 1
    assert sent.count([PLAIN_TEXT]) > count


def test_a_text_that_ended_a_server_is_convicted_by_a_later_call_if_that_is_back_only_then(warm):
    hosts = warm(1, patience=10.0)
    hosts[0].ended_by(POISON, back_after=100.0)
    entries = None
    while entries is None:
        with suppress(EmbedderUnavailable):
            entries = hosts.embed([POISON, "another text"], one_by_one=True)
        hosts.pass_time(5.0)
    assert isinstance(entries[0], TextEndsServer)
    assert hosts[0].requests_with(POISON) == 1


def test_a_text_alone_is_sent_alone_also_after_a_call_that_gave_up_with_several(warm):
    """That call's batches of several texts, and their failures, prove nothing of one text."""
    hosts = warm(1, patience=10.0)
    texts = [f"text {number}" for number in range(4)]
    hosts[0].ended_by(texts[0], back_after=100.0)
    with pytest.raises(EmbedderUnavailable):
        hosts.embed(texts)
    hosts.pass_time(200.0)
    hosts[0].sent.clear()
    with suppress(EmbedderUnavailable):
        hosts.embed(texts, one_by_one=True)
    assert [texts[0]] in hosts[0].sent
    assert all(len(sent) == 1 for sent in hosts[0].sent), hosts[0].sent


def test_a_server_that_is_down_before_or_asks_for_a_pause_convicts_no_text(warm):
    hosts = warm(1)
    hosts[0].stop()
    hosts.at(20.0, hosts[0].start)
    hosts[0].outcomes(POISON, [RateLimited("later", 2.0), HostUnreachable("refused")])
    assert_own_vectors(hosts.embed([POISON], one_by_one=True), [POISON])
    assert hosts[0].requests_with(POISON) == 3
