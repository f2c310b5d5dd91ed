"""Texts shared out to several hosts: who gets them, who stands in for whom, and whose fault a failure is.

The hosts live in this process and time is virtual, so every outcome below is the same on any machine.
"""

import random

import pytest

from rag_index.errors import BadVectors, EmbedderUnavailable, HostUnreachable, RateLimited, TextRefused
from tests.fakes.hosts import HANG, ILL, PLAIN_TEXT, FakeHosts, assert_own_vectors

TEXTS = [f"document {number} " + "word " * (number % 5) for number in range(200)]
POISON = "poison in this one"
REFUSED = TextRefused("invalid input")


@pytest.fixture
def warm():
    """Hosts that have all embedded a plain text, so that a fault meets the next text. Their loops are closed."""
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


# Hosts that hang


def test_a_host_that_hangs_keeps_its_batches_only_until_the_timeout(warm):
    hosts = warm(3, timeout=5.0)
    hosts[0].always("", HANG)
    assert 5 < hosts.seconds_to_embed(TEXTS) < 6


def test_a_wedged_host_is_found_out_after_one_request_and_three_probes(warm):
    hosts = warm(1, timeout=60.0, patience=30.0)
    hosts[0].always("", HANG)
    began = hosts.loop.time()
    with pytest.raises(EmbedderUnavailable, match="gave no answer in time"):
        hosts.embed(TEXTS)
    assert 3 * 60 + 30 <= hosts.loop.time() - began < 4 * 60 + 60


def test_what_a_host_made_is_made_again_if_it_goes_away_before_its_model_was_compared(warm):
    """Its model may have been pulled again meanwhile: nobody can tell any more of which one its vectors are."""
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
    took = hosts.seconds_to_embed(TEXTS)
    assert took < 2.0 * len(TEXTS) + 10, "no request timed out"


# Whose fault it is


@pytest.mark.parametrize("error", [RateLimited("slow down", 1.0), HostUnreachable("accepts no connection")])
def test_a_host_that_pauses_or_accepts_no_connection_never_convicts_a_text(warm, error):
    hosts = warm(1)
    hosts[0].outcomes(POISON, [error] * 12)
    assert_own_vectors(hosts.embed([POISON]), [POISON])


@pytest.mark.parametrize("error", [ILL, REFUSED, BadVectors("NaN")])
@pytest.mark.parametrize("plain", [[ILL, None] * 5, [None, None, ILL, None, None, ILL, None, None]])
def test_a_host_that_fails_on_the_plain_text_too_clears_the_text(warm, error, plain):
    """Where it fails on the plain text as well, the host is the one that is ill, whatever was proved before."""
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
    assert type(entry) is (TextRefused if isinstance(error, EmbedderUnavailable) else type(error))
    assert sum(host.requests_with(POISON) for host in hosts.hosts) == (3 if count == 1 else 4)
    judge = max(hosts.hosts, key=lambda host: host.requests_with(POISON))
    assert judge.sent[-6:] == [[POISON], [PLAIN_TEXT]] * 3


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
    assert hosts.texts_by_host()[0] > 0


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
    """One host after the other stops in the middle of its work, and fails on its first texts when it is back."""
    hosts, chance = warm(3, batch_texts=1, seconds_per_text=[0.05] * 3), random.Random(seed)
    at = 0.0
    for turn in range(200):
        host = hosts[turn % 3]
        hosts.at(at, host.stop)
        hosts.at(at + 0.2, host.start)
        hosts.at(at + 0.2, lambda host=host: host.outcomes("document", [ILL]))
        at += chance.uniform(0.2, 0.6)
    for _ in range(4):
        assert_own_vectors(hosts.embed(TEXTS), TEXTS)
    assert hosts.stats.retries > 0
