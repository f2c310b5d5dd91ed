"""Several threads that embed with one embedder, as those of a run's shards: the server never waits for one of them."""

import threading

from rag_index.errors import TextRefused

TEXTS = [[f"text {number} of call {call}" for number in range(40)] for call in range(4)]


def embedded_at_once(embedder, calls):
    """What each call returned, and the requests that its thread counted."""
    found = [None] * len(calls)

    def call(number):
        entries = embedder.embed_documents(calls[number])
        found[number] = entries, embedder.stats.requests

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def test_the_next_call_sends_its_first_texts_while_the_last_ones_of_another_are_embedded(server, make_embedder):
    embedder = make_embedder(server, timeout=300.0)  # a request that is sent again would make two as well
    embedder.embed_documents(["warm up"])
    server.together = 2  # neither call gets its answer before both have asked
    assert all(found is not None for found in embedded_at_once(embedder, [["one"], ["two"]]))


def test_a_fault_in_one_call_costs_the_others_nothing(server, make_embedder):
    embedder = make_embedder(server, batch_texts=4, patience=30.0)
    embedder.embed_documents(["warm up"])
    server.fault("status", code=400, words="refused", marker="text 7 of call 1")
    server.fault("reset", times=3)
    found = embedded_at_once(embedder, TEXTS)
    for call, (entries, _) in enumerate(found):
        refused = [number for number, entry in enumerate(entries) if isinstance(entry, TextRefused)]
        assert refused == ([7] if call == 1 else [])
