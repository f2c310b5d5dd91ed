"""What others say of a request is shown without what it held: texts, payloads, values of rows."""

import json
import logging
import pickle
import traceback
from contextlib import closing

import httpx
import numpy as np
import pytest
from distributed import Client, LocalCluster
from distributed.protocol import pickle as dask_pickle

import tasks.policies  # noqa: F401 - workers import it with their first task
from rag_index.components.embedders import open_embedder
from rag_index.components.embedders.local import LocalEmbedder
from rag_index.components.stores import open_store
from rag_index.core.documents.batches import DocumentBatch, PointBatch, Shard
from rag_index.core.settings import EmbedderSettings, StoreSettings
from rag_index.errors import (
    BadVectors,
    PointsRefused,
    StoreUnavailable,
    TerminalError,
    TransientError,
)
from rag_index.etl.embed import EmbedJob
from rag_index.quotes import described, values_in, without_messages, without_texts, without_values
from tasks.policies import only_our_errors, only_ours

TEXT = "The diagnosis of number 7 is measles, code B05.9, see person7@example.com"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("invalid token 'measles' in input", "invalid token '…' in input"),
        (f"cannot embed {TEXT}", "cannot embed The … of number … is …, code …"),
        ("cannot embed The diagnosis of number 7 is meas", "cannot embed The … of number … is …"),
        ("MEASLES is no number; B05 neither", "… is no number; … neither"),
        (
            "input length exceeds the context length (512 tokens)",
            "input length exceeds the context length (512 tokens)",
        ),
        (
            "CUDA out of memory. Tried to allocate 2.00 GiB",
            "CUDA out of memory. Tried to allocate 2.00 GiB",
        ),
        ("expected dim: 256, got 128", "expected dim: 256, got 128"),
    ],
)
def test_a_servers_answer_keeps_what_is_wrong_and_loses_what_was_sent(said, shown):
    assert without_texts(said, [TEXT]) == shown
    assert without_texts(said, []) == said


@pytest.mark.parametrize(
    "text",
    [
        "患者は麻疹と診断された",
        "المريض مصاب بالحصبة",
        "रोगी को खसरा है",
        "ผู้ป่วยเป็นหัด",
        "환자는 홍역에 걸렸다",
    ],
)
def test_a_part_of_a_text_in_any_script_is_left_out(text):
    middle = text[3:-1]
    shown = without_texts(f"cannot embed {middle} at position 3", [text])
    assert shown.startswith("cannot embed ")
    assert shown.endswith(" at position 3")
    assert not set(shown) & {
        letter for letter in middle if not letter.isascii() and letter.isalpha()
    }


def test_values_of_a_payload_are_found_wherever_they_are_nested():
    payload = {
        "author": "measles",
        "n": 48213,
        "yes": True,
        "none": None,
        "more": [{"deep": ["zorilla"]}],
    }
    assert list(values_in([payload])) == ["measles", "48213", "zorilla"]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            'invalid input syntax for type integer: "measles"',
            'invalid input syntax for type integer: "…"',
        ),
        ('of type integer: "it is "measles" indeed"', 'of type integer: "…"'),
        (
            "Truncated incorrect DOUBLE value: 'it's measles'",
            "Truncated incorrect DOUBLE value: '…'",
        ),
        ('invalid value: "it is\nmeasles, and no end', 'invalid value: "…"'),
        ("found b'measles'", "found b'…'"),
        ("division by zero", "division by zero"),
    ],
)
def test_a_message_about_a_value_is_shown_without_it(said, shown):
    assert without_values(said) == shown


def failed(call):
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError


def test_an_error_of_others_is_described_by_its_class_and_place_and_ours_by_its_message():
    assert described(TerminalError("correct it")) == "correct it"
    assert described(FileNotFoundError(2, "No such file", "a.pdf")).startswith(
        "FileNotFoundError: "
    )
    assert described(ValueError(TEXT)) == "ValueError"
    said = described(failed(lambda: {}[TEXT]))
    assert said.startswith("KeyError in ")
    assert "test_quotes.py, line " in said


def test_causes_keep_class_and_place_and_lose_their_messages():
    def fails():
        try:
            json.loads(TEXT)
        except ValueError as error:
            try:
                raise KeyError(TEXT) from error
            except KeyError as second:
                raise TransientError("the source does not answer") from second

    for task in (fails, only_ours("fetch")(fails)):
        error = failed(task)
        error.__cause__ = without_messages(error.__cause__)
        shown = "".join(traceback.format_exception(error))
        assert "measles" not in shown
        for kept in (
            "the source does not answer",
            "builtins.KeyError",
            "json.decoder.JSONDecodeError",
            "in fails",
        ):
            assert kept in shown


def test_whatever_a_task_raises_becomes_ours_but_for_a_stop_and_what_prefect_answers():
    def raises(error):
        with only_our_errors("fetch"):
            raise error

    error = failed(lambda: raises(ValueError(TEXT)))
    assert isinstance(error, TerminalError)
    assert str(error).startswith("fetch failed: ValueError in ")
    assert "measles" not in "".join(traceback.format_exception(error))
    for kept in (
        httpx.ConnectError("away"),
        ValueError("Error calling function `x`: KeyboardInterrupt:"),
    ):
        assert failed(lambda kept=kept: raises(kept)) is kept
    with pytest.raises(KeyboardInterrupt):
        raises(KeyboardInterrupt())
    pickle.dumps(only_ours)


def test_a_broken_vector_is_told_without_its_text():
    embedder = LocalEmbedder(EmbedderSettings())
    [entry] = embedder._entries(np.zeros((1, 256), dtype=np.float32))
    assert isinstance(entry, BadVectors)
    assert str(entry) == "wordllama returned a vector of nothing but zeros for a text"


@pytest.mark.parametrize("kind", ["zero", "nan", "dimension"])
def test_a_broken_vector_of_a_server_is_told_without_its_text_also_in_the_log(fake, caplog, kind):
    fake.fault(kind, marker="measles")
    settings = EmbedderSettings(kind="ollama", model=fake.model, hosts=[fake.url])
    with closing(open_embedder(settings)) as embedder:
        good, bad = embedder.embed_documents(["a good text", TEXT])
    assert isinstance(good, np.ndarray)
    assert isinstance(bad, BadVectors)
    assert "measles" not in f"{bad} {caplog.text}"


@pytest.mark.parametrize(
    ("code", "shown"), [(400, "cannot embed …"), (422, "cannot embed …"), (500, "cannot embed …")]
)
def test_a_server_that_repeats_a_text_is_quoted_without_it(fake, caplog, code, shown):
    caplog.set_level(logging.DEBUG, "rag_index")
    fake.fault("status", code=code, marker="measles", words="cannot embed {texts}")
    settings = EmbedderSettings(kind="ollama", model=fake.model, hosts=[fake.url])
    with closing(open_embedder(settings)) as embedder:
        good, bad = embedder.embed_documents(["a good text", "measles"])
    assert isinstance(good, np.ndarray)
    assert f"answers {code}: {shown}" in str(bad)
    assert "measles" not in f"{bad} {bad.__cause__!r} {caplog.text}"


@pytest.mark.parametrize(
    ("status", "error"), [(400, PointsRefused), (500, StoreUnavailable), (503, StoreUnavailable)]
)
def test_a_store_that_repeats_a_payload_is_quoted_without_it(qdrant, caplog, status, error):
    caplog.set_level(logging.DEBUG, "rag_index")
    with closing(open_store(StoreSettings(url=qdrant.url), patience=0.5)) as store:
        store.create("notes", 4, {})
        qdrant.break_next(
            "PUT ", marker="measles", times=None, status=status, error="Wrong input:", echo=True
        )
        payloads = [{"author": "person7@example.com", "_rag": {"text": TEXT}}]
        points = PointBatch(
            ["00000000-0000-4000-8000-000000000001"], np.ones((1, 4), np.float32), payloads
        )
        with pytest.raises(error, match="Wrong input: ") as caught:
            store.points("notes").upsert(points)
    shown = "".join(traceback.format_exception(caught.value))
    assert "measles" not in shown + caplog.text
    assert "example.com" not in shown + caplog.text


def test_dask_shows_sizes_of_a_job_that_fails_and_of_a_shard_that_cannot_be_read(caplog):
    caplog.set_level(logging.DEBUG, "distributed")
    job = EmbedJob(
        Shard("desk", 3, DocumentBatch(['["k"]'], [TEXT], [b"{}"], [b"1"], [b"2"]), 9),
        None,
        None,
        None,
    )

    def fails(job):
        raise RuntimeError("no workers here")

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
        pytest.raises(RuntimeError),
    ):
        client.submit(fails, job).result()
    assert "Compute Failed" in caplog.text
    with pytest.raises(pickle.UnpicklingError):
        dask_pickle.loads(pickle.dumps(job)[:-20])
    assert "Failed to deserialize …" in caplog.text
    assert "measles" not in caplog.text
