"""The embedder that `init` proposes: which models it finds, which one it takes, and what file and
screen say of it."""

import json
import re
import socket
import sqlite3
import time
from contextlib import chdir
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import pytest

from rag_index.cli import settings as commands
from rag_index.components.embedders import candidates
from rag_index.components.embedders.candidates import (
    ALL_LANGUAGES,
    ModelCandidate,
    languages_of,
    propose_model,
)
from rag_index.core.settings import load_settings
from rag_index.errors import EmbedderError
from tests.fakes.ollama import FakeOllama
from tests.fakes.onnx_models import write_model
from tests.live.models import write_embedding_gguf
from tests.live.ollama_server import OllamaServer, find_ollama
from tests.project import run_here
from tests.waiting import GENEROUS

ENGLISH = "The printer in room {} shows blank pages, and the person at the desk has to wait for it."
GERMAN = (
    "Der Drucker in Raum {} zeigt leere Seiten, und die Person am Schreibtisch muss auf ihn warten."
)
POLISH = (
    "Drukarka w pokoju {} drukuje puste strony, a osoba przy biurku musi na nią czekać przez"
    " godzinę."
)
TEXTS = [ENGLISH.format(number) for number in range(20)]


def make_database(folder, text):
    with sqlite3.connect(folder / "source.db") as db:
        db.execute("CREATE TABLE ticket (id INTEGER PRIMARY KEY, subject TEXT, body TEXT)")
        db.executemany(
            "INSERT INTO ticket VALUES (?, ?, ?)",
            [(i, f"Ticket {i}", text.format(i)) for i in range(1, 61)],
        )
    db.close()


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """Let the hub's cache be a folder of the test's own."""
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    folder.mkdir()
    make_database(folder, ENGLISH)
    hosts_are(monkeypatch, [])
    return folder


def hosts_are(monkeypatch, urls):
    """Name the servers that are asked; by default one that refuses connections."""
    monkeypatch.setenv("RAG_INDEX_EMBEDDER__HOSTS", json.dumps(urls or ["http://127.0.0.1:9"]))


def cache_model(cache, name):
    """Put a model of a kilobyte into the cache under the name of one of the library's list; return
    the repository."""
    from fastembed import TextEmbedding

    entry = next(entry for entry in TextEmbedding.list_supported_models() if entry["model"] == name)
    repository = cache / f"models--{entry['sources']['hf'].replace('/', '--')}"
    write_model(repository / "snapshots" / ("c" * 40), file=entry["model_file"])
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c" * 40)
    return repository


def init(folder, *options):
    """Run `init`; return what it prints, and the settings."""
    with chdir(folder):
        out, err = run_here("rag-index.toml", "init", "source.db", "--force", *options)
    return out, err, load_settings(folder / "rag-index.toml")


def test_a_model_of_an_ollama_server_is_proposed_with_its_rate_and_plan_uses_that_until_a_run(
    folder, fake, monkeypatch
):
    hosts_are(monkeypatch, [fake.url])
    fake.seconds_per_text = 0.01
    out, err, settings = init(folder, "--yes")
    monkeypatch.delenv("RAG_INDEX_EMBEDDER__HOSTS")
    assert (settings.embedder.kind, settings.embedder.model) == ("ollama", fake.model)
    assert load_settings(folder / "rag-index.toml").embedder.hosts == [fake.url]
    assert f"Trying {fake.model} with 20 texts" in err
    [said] = [line for line in out.splitlines() if line.startswith("Embedder: ")]
    assert (
        f"{fake.model} runs on Ollama at {fake.url}: the only model found here for English." in said
    )
    rate = re.search(r"It embedded ([\d,]+) characters/s\.$", said)[1]
    text = (folder / "rag-index.toml").read_text()
    assert f"# Measured by init: {rate} characters/s with {fake.model}\n[embedder]\n" in text
    asked = len(fake.embeds())
    assert sorted(len(request.texts) for request in fake.embeds()) == [1, 20]
    planned = json.loads(run_here(folder / "rag-index.toml", "plan", "--json")[0])["indexes"][0][
        "cost"
    ]
    assert (planned["chars_per_second"], planned["measured_by"]) == (
        float(rate.replace(",", "")),
        "init",
    )
    assert planned["seconds"] == pytest.approx(
        planned["characters"] / planned["chars_per_second"], abs=0.1
    )
    assert (
        f"at {rate} characters/s, as init measured"
        in run_here(folder / "rag-index.toml", "plan")[0]
    )
    assert len(fake.embeds()) - asked <= 2, (
        "plan embeds one text, to know the model, and measures nothing"
    )


def test_the_rate_of_another_model_is_not_that_of_this_one(folder, fake, monkeypatch):
    hosts_are(monkeypatch, [fake.url])
    init(folder, "--yes")
    monkeypatch.setenv("RAG_INDEX_EMBEDDER__KIND", "local")
    monkeypatch.setenv("RAG_INDEX_EMBEDDER__MODEL", "wordllama")
    assert "unknown until a run has measured it" in run_here(folder / "rag-index.toml", "plan")[0]


def test_a_model_of_the_cache_is_proposed_and_used_without_the_hub(folder, empty_cache):
    pytest.importorskip("fastembed")
    cache_model(empty_cache, "BAAI/bge-small-en-v1.5")
    out, _, settings = init(folder, "--yes")
    assert (settings.embedder.kind, settings.embedder.model) == (
        "fastembed",
        "BAAI/bge-small-en-v1.5",
    )
    assert "BAAI/bge-small-en-v1.5 runs in the process" in out
    assert "as init measured" in run_here(folder / "rag-index.toml", "plan")[0]


@pytest.mark.parametrize("missing", ["tokenizer.json", "model_optimized.onnx"])
def test_half_a_model_in_the_cache_is_none(folder, empty_cache, missing):
    pytest.importorskip("fastembed")
    repository = cache_model(empty_cache, "BAAI/bge-small-en-v1.5")
    next(repository.rglob(missing)).unlink()
    out, _, settings = init(folder, "--yes")
    assert settings.embedder.kind == "local"
    assert (
        "Embedder: wordllama needs nothing else. BAAI/bge-small-en-v1.5 (67 MB, downloaded once)"
        in out
    )
    assert len(list(empty_cache.iterdir())) == 1, "nothing was downloaded"


def seem_slow(monkeypatch, server):
    """Let the clock of the trials show a fifth of a second more for each text that a server
    embeds."""

    def clock():
        return time.monotonic() + 0.2 * sum(len(request.texts) for request in server.embeds())

    monkeypatch.setattr(candidates, "time", SimpleNamespace(monotonic=clock))


def test_the_fastest_of_all_that_know_the_language_is_proposed(empty_cache, monkeypatch):
    pytest.importorskip("fastembed")
    cache_model(empty_cache, "BAAI/bge-small-en-v1.5")
    with FakeOllama(model="all-minilm") as slow:
        seem_slow(monkeypatch, slow)
        found = propose_model([slow.url], TEXTS, ["english"])
    assert (found.candidate.model, found.candidate.host) == ("BAAI/bge-small-en-v1.5", "")
    assert "the fastest of 2 models" in found.why
    with FakeOllama(model="bge-m3") as slow:
        seem_slow(monkeypatch, slow)
        found = propose_model([slow.url], TEXTS, ["german", "english"])
    assert found.candidate.model == "bge-m3", "the other one knows English alone"


def test_models_that_only_chat_or_that_do_not_know_the_language_are_not_proposed(fake):
    fake.capabilities = ("completion", "tools")
    assert propose_model([fake.url], TEXTS, ["english"]).candidate is None
    fake.capabilities = ("embedding",)
    found = propose_model([fake.url], TEXTS, ["german"])
    assert found.candidate is None
    assert f"knows English alone ({fake.model} may not know it)" in found.why
    assert "paraphrase-multilingual-MiniLM-L12-v2" in found.why
    assert not fake.embeds()


@pytest.mark.parametrize(("text", "knows"), [(ENGLISH, True), (GERMAN, False), (POLISH, False)])
def test_the_language_of_the_texts_is_that_of_the_index_or_one_that_search_by_words_does_not_know(
    tmp_path, monkeypatch, text, knows
):
    make_database(tmp_path, text)
    with FakeOllama(model="all-minilm") as english, FakeOllama(model="bge-m3") as every:
        hosts_are(monkeypatch, [english.url])
        assert init(tmp_path, "--yes")[2].embedder.kind == ("ollama" if knows else "local")
        hosts_are(monkeypatch, [every.url])
        assert init(tmp_path, "--yes")[2].embedder.kind == "ollama"


def test_languages_are_told_by_names():
    assert languages_of("all-minilm:33m") == languages_of("BAAI/bge-small-en-v1.5") == {"english"}
    assert languages_of("jina/jina-embeddings-v2-base-de") == {"english", "german"}
    for name in (
        "bge-m3",
        "nomic-embed-text-v2-moe",
        "snowflake-arctic-embed2:568m",
        "embeddinggemma",
    ):
        assert languages_of(name) == ALL_LANGUAGES, name
    assert languages_of("my-model") is None
    assert languages_of("x", "text embeddings, multilingual (german, english)") == {
        "german",
        "english",
    }


def test_a_server_that_is_silent_or_no_ollama_costs_seconds_at_most(folder, fake, monkeypatch):
    for kind in ("html", "half"):
        fake.fault(kind, path=None)
        assert propose_model([fake.url], TEXTS, ["english"]).candidate is None
        fake.clear()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        limits = []
        monkeypatch.setattr(candidates, "in_thread", lambda call, name: Awaited(limits))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert propose_model([url, url], TEXTS, ["english"]).candidate is None
    assert len(limits) == 2
    assert max(limits) <= candidates.LOOK_SECONDS + candidates.SPARE_SECONDS <= 2.2


def test_what_a_server_has_described_in_time_counts(fake, monkeypatch):
    """The clock goes on by 1.5 s with each look at it: the server describes one model, and has
    two."""
    now, objects = [0.0], candidates._objects

    def tick():
        now[0] += 1.5
        return now[0]

    monkeypatch.setattr(candidates, "_objects", lambda answer, key: 2 * list(objects(answer, key)))
    monkeypatch.setattr(candidates, "time", mock.Mock(monotonic=tick))
    assert [one.model for one in candidates._models_of_server(fake.url, 2.0)] == [fake.model]


class Awaited:
    """The future of a call that does not end; it notes how long it is waited for."""

    def __init__(self, limits):
        self._limits = limits

    def result(self, timeout):
        self._limits.append(timeout)
        raise TimeoutError


def test_a_model_that_fails_or_is_too_slow_leaves_the_others(fake, monkeypatch):
    fake.fault("status", code=500)
    found = propose_model([fake.url], TEXTS, ["english"])
    assert found.candidate is None
    assert f"{fake.model} did not embed 20 texts" in found.why
    good = ModelCandidate("ollama", "good", "http://127.0.0.1:9", 2, None)
    bad, broken = replace(good, model="bad", size=1), replace(good, model="broken", host="", size=0)

    def seconds(candidate, texts, deadline):
        assert deadline > time.monotonic()
        if candidate is not good:
            raise EmbedderError("it is broken")
        return 2.0

    monkeypatch.setattr(candidates, "_seconds_on_server", seconds)
    monkeypatch.setattr(candidates, "_seconds_in_process", seconds)
    assert candidates.measure_rates([good, bad, broken], ["x" * 50, "y" * 50]) == {good: 50}


def test_texts_that_are_too_long_for_a_model_are_embedded_in_parts(empty_cache):
    """One that is refused would take no time, and make a model the fastest."""
    pytest.importorskip("fastembed")
    cache_model(empty_cache, "BAAI/bge-small-en-v1.5")
    [candidate] = candidates.cached_models()
    with pytest.MonkeyPatch.context() as patch:
        embedded = []
        opened = candidates.open_embedder

        def noted(settings):
            embedder = opened(settings)
            entry = embedder._entry
            embedder._entry = lambda text, query: embedded.append(text) or entry(text, query)
            return embedder

        patch.setattr(candidates, "open_embedder", noted)
        candidates._seconds_in_process(
            candidate, ["w7 w8 w9 w10 w11 w12 " * 3], time.monotonic() + 60
        )
    assert len("".join(embedded)) >= 2 * 60
    assert all(len(text.split()) <= 6 for text in embedded)


def test_the_screen_and_json_have_the_reason_and_an_embedder_that_a_variable_names_is_left_alone(
    folder, fake, monkeypatch
):
    hosts_are(monkeypatch, [fake.url])
    with chdir(folder):
        said = json.loads(run_here("rag-index.toml", "init", "source.db", "--json")[0])["embedder"]
    assert (said["kind"], said["model"], said["hosts"]) == ("ollama", fake.model, [fake.url])
    assert said["chars_per_second"] > 0
    assert not (folder / "rag-index.toml").exists()
    monkeypatch.setenv("RAG_INDEX_EMBEDDER__KIND", "openai")
    monkeypatch.setenv("RAG_INDEX_EMBEDDER__MODEL", "m")
    fake.clear()
    out = init(folder, "--yes")[0]
    assert ("Embedder:" in out, fake.requests) == (False, [])


def test_the_samples_and_try_stay_with_wordllama(tmp_path, fake, monkeypatch):
    hosts_are(monkeypatch, [fake.url])
    with chdir(tmp_path):
        run_here("rag-index.toml", "sample", "workshop", "--out", "workshop.db", "--settings")
    assert load_settings(tmp_path / "rag-index.toml").embedder.kind == "local"
    monkeypatch.setattr(
        commands, "_embedder", lambda *_: pytest.fail("only init proposes an embedder")
    )
    folder = tmp_path / "try"
    folder.mkdir()
    with chdir(folder):
        run_here("rag-index.toml", "try", str(tmp_path / "workshop.db"), "--once", "--write")
    assert load_settings(folder / "rag-index.toml").embedder.kind == "local"
    assert fake.requests == []


@pytest.mark.ollama
def test_a_real_server_says_which_of_its_models_embed(tmp_path, monkeypatch):
    for limit in ("LOOK_SECONDS", "TRY_SECONDS"):  # a busy machine takes longer to load the model
        monkeypatch.setattr(candidates, limit, GENEROUS)
    program = find_ollama()
    if isinstance(program, str):
        pytest.fail(program)
    with OllamaServer(program, tmp_path) as server:
        name = server.create("tiny-embed", write_embedding_gguf(tmp_path / "tiny.gguf"))
        found = propose_model([server.url], TEXTS, ["english"])
    assert found.candidate.model == name.removesuffix(":latest")
    assert found.chars_per_second > 0
