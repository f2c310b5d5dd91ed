"""Where a model in the process comes from: a folder, the cache of the model hub, or the hub. Each
fault is one line with its remedy, and never leads to a model that gives other vectors."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from rag_index.components.embedders import identify, open_embedder
from rag_index.core.settings import EmbedderSettings
from rag_index.errors import BadVectors, ModelMissing, RerankerError
from rag_index.search.rerankers import ModelReranker
from tests.fakes.hub import READ_AGAIN, Hub
from tests.fakes.onnx_models import CROSS_ENCODER, rows, tiny_model, write_model
from tests.fakes.tls import PrivateAuthority, TlsFront
from tests.forked_program import run_code
from tests.project import Project
from tests.reliability.test_disk_and_clock import Disk
from tests.waiting import eventually

NAME, SOURCE = "sentence-transformers/all-MiniLM-L6-v2", "Qdrant/all-MiniLM-L6-v2-onnx"
BY_NAME = "bge-small-en-v1.5"
"""A listed model whose vector is that of its first token, which is 0 in the models of the tests."""
IDENTIFY = """
import json, sys
from dataclasses import asdict
from rag_index.components.embedders import identify
from rag_index.core.settings import EmbedderSettings
from rag_index.errors import RagIndexError
try:
    found = identify(EmbedderSettings(kind="fastembed", model=sys.argv[1]), revision=sys.argv[2])
except RagIndexError as exc:
    print(json.dumps({"error": str(exc), "class": type(exc).__name__}))
else:
    print(json.dumps(asdict(found)))
"""
WITHOUT_PAUSES = """
import time
time.sleep = lambda seconds: None  # the hub's library rests for a second before each of five tries
"""


def settings(model, **given) -> EmbedderSettings:
    return EmbedderSettings(kind="fastembed", model=str(model), **given)


def refused(model) -> str:
    with pytest.raises(ModelMissing) as raised:
        open_embedder(settings(model)).embed_query("w7")
    assert "\n" not in str(raised.value)
    return str(raised.value)


def started(model, revision: str = "", **environment: str) -> subprocess.Popen:
    """Start a process that identifies a model, since the hub's library reads its variables once."""
    command = [sys.executable, "-c", IDENTIFY, str(model), revision]
    own = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.Popen(
        command, env=own | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def identified(model, revision: str = "", *, first: str = "", **environment: str) -> dict[str, str]:
    """Identify a model in a process that begins with these variables.

    It is forked from one that has imported the hub's library, and lets that read them again:
    importing it takes a second of processor time. Certificates are read by a process of its own.
    `first` is code that runs before.
    """
    if "SSL_CERT_FILE" in environment:
        out, said = started(model, revision, **environment).communicate(timeout=120)
    else:
        own = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        ended = run_code(READ_AGAIN + first + IDENTIFY, own | environment, str(model), revision)
        out, said = ended.stdout, ended.stderr
    assert "Traceback" not in said
    return json.loads(out)


@pytest.fixture
def hub():
    with Hub(SOURCE) as server:
        yield server


@pytest.fixture
def model(tmp_path) -> Path:
    return write_model(tmp_path / "mini")


@pytest.fixture
def small_disk(tmp_path):
    with Disk(Project(tmp_path / "project"), 1) as disk:
        yield disk


# What decides the pooling


def test_the_file_about_pooling_decides_and_a_listed_name_only_where_it_is_missing(tmp_path):
    by_name = write_model(tmp_path / BY_NAME, file="model_optimized.onnx", pooling=None)
    first_token = open_embedder(settings(by_name)).embed_documents(["w7"])[0]
    assert isinstance(first_token, BadVectors)
    write_model(by_name, file="model_optimized.onnx", pooling="mean_tokens")
    other = write_model(tmp_path / "mini")
    by_file, unlisted = (
        open_embedder(settings(one)).embed_documents(["w7 w8"])[0] for one in (by_name, other)
    )
    assert np.array_equal(by_file, unlisted)
    assert identify(settings(by_name)).pooling == "MEAN, by 1_Pooling/config.json"
    assert (
        identify(settings(write_model(tmp_path / "all-MiniLM-L6-v2", pooling=None))).pooling
        == f"MEAN, by the name {NAME}"
    )


def test_a_model_that_pools_by_itself_is_left_to_do_it(tmp_path, model):
    own = write_model(tmp_path / "own", tiny_model(pooled=True, given="sentence_embedding"))
    assert open_embedder(settings(own)).embed_query("w7").shape == (8,)
    assert identify(settings(own)).pooling == "DISABLED, by the model itself"
    tokens = write_model(tmp_path / "tokens", tiny_model())
    first, second = (
        open_embedder(settings(folder)).embed_query("w7 w9 w31") for folder in (own, tokens)
    )
    assert np.allclose(first, second, atol=1e-6)
    assert identify(settings(own)).digest != identify(settings(tokens)).digest


def test_each_way_to_write_a_pooling_is_read_and_one_that_is_unknown_is_named(model):
    for written, name in (
        ({"pooling_mode": "mean"}, "MEAN"),
        ({"pooling_mode_mean_tokens": True}, "MEAN"),
    ):
        (model / "1_Pooling/config.json").write_text(json.dumps(written))
        assert identify(settings(model)).pooling.startswith(name)
    (model / "1_Pooling/config.json").write_text('{"pooling_mode_max_tokens": true}')
    assert "names no pooling that fastembed has" in refused(model)
    (model / "1_Pooling/config.json").write_text("[]")
    assert "1_Pooling/config.json of" in refused(model)


# Folders


def test_a_folder_without_a_tokenizers_configuration_is_enough(model, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    whole = open_embedder(settings(model)).embed_query("w7 w8")
    for name in ("tokenizer_config.json", "config.json"):
        (model / name).unlink()
    assert sorted(file.name for file in model.iterdir()) == [
        "1_Pooling",
        "model.onnx",
        "tokenizer.json",
    ]
    assert np.array_equal(open_embedder(settings(model)).embed_query("w7 w8"), whole)
    assert open_embedder(settings(model)).embed_documents(["w7 " * 400])[0].shape == (8,), (
        "as many as BERT takes"
    )
    assert sorted(file.name for file in model.iterdir()) == [
        "1_Pooling",
        "model.onnx",
        "tokenizer.json",
    ]
    (model / "sentence_bert_config.json").write_text('{"max_seq_length": 5}')
    assert "more than 5 tokens" in str(
        open_embedder(settings(model)).embed_documents(["w7 w7 w7 w7"])[0]
    )
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize("file", ["model.onnx", "onnx/model.onnx"])
@pytest.mark.parametrize("whole", [True, False])
def test_the_data_of_a_large_model_lies_beside_its_onnx_file(tmp_path, file, whole):
    folder = write_model(tmp_path / "large", tiny_model(data="model.onnx_data"), file=file)
    data = (folder / file).with_name("model.onnx_data")
    data.write_bytes(rows())
    if not whole:
        (folder / "tokenizer_config.json").unlink()
    small = write_model(tmp_path / "small", tiny_model())
    found, expected = (
        open_embedder(settings(model)).embed_query("w7 w8") for model in (folder, small)
    )
    assert np.array_equal(found, expected)
    before = identify(settings(folder)).digest
    data.write_bytes(rows()[::-1])
    assert identify(settings(folder)).digest != before


def test_each_fault_of_a_folder_is_named(model, tmp_path):
    assert "there is no folder" in refused(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "has no ONNX file" in refused(tmp_path / "empty")
    (tmp_path / "empty" / "model.safetensors").write_bytes(b"weights")
    assert "has model.safetensors, and no ONNX file" in refused(tmp_path / "empty")
    write_model(model, file="onnx/model_int8.onnx")
    assert "has 2 ONNX files (model.onnx, onnx/model_int8.onnx)" in refused(model)
    (model / "onnx/model_int8.onnx").unlink()
    for name, content in {"tokenizer.json": b"{", "model.onnx": b"half a file"}.items():
        sound = (model / name).read_bytes()
        (model / name).write_bytes(content)
        assert "cannot be loaded" in refused(model)
        (model / name).write_bytes(sound)
    (model / "tokenizer.json").unlink()
    assert "has no tokenizer.json" in refused(model)


def test_a_file_that_this_user_may_not_read_is_named(model, monkeypatch):
    def read(*_, **__):
        raise PermissionError(13, "Permission denied", str(model))

    monkeypatch.setattr("rag_index.components.embedders.model_files._in_folder", read)
    assert f"cannot be read ([Errno 13] Permission denied: '{model}')" in refused(model)


def test_a_model_that_makes_no_vectors_of_texts_is_refused(tmp_path):
    reranker = write_model(tmp_path / "cross", CROSS_ENCODER)
    assert "is no text embedder (it gives scores, as rerankers and classifiers do)" in refused(
        reranker
    )
    named = write_model(tmp_path / "all-MiniLM-L6-v2", CROSS_ENCODER, pooling=None)
    assert "is no text embedder" in refused(named)
    images = write_model(tmp_path / "images", tiny_model(taken="pixel_values"))
    assert "is no text embedder (it takes pixel_values)" in refused(images)
    assert "'Qdrant/clip-ViT-B-32-vision' is a model for images" in refused(
        "Qdrant/clip-ViT-B-32-vision"
    )
    assert "is a reranker, and no text embedder" in refused("Xenova/ms-marco-MiniLM-L-6-v2")
    with pytest.raises(RerankerError, match="is a text embedder, and no reranker"):
        ModelReranker(NAME)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("BAAI/bge-smal-en-v1.5", "BAAI/bge-small-en-v1.5"),
        ("BGE-SMAL-EN-V1.5", "BAAI/bge-small-en-v1.5"),
        ("my/all-MiniLM-L6-v2", NAME),
        (
            "paraphrase-multilingual-minilm-l12",
            "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
        ),
    ],
)
def test_a_wrong_name_gets_the_one_that_may_be_meant(given, meant):
    assert (
        f"{given!r} is no folder, and not in fastembed's list of models: did you mean {meant!r}?"
        in refused(given)
    )


def test_a_name_that_is_like_none_gets_no_guess():
    assert refused("qqqq").endswith("list of models: set model to one")


def test_a_model_takes_as_many_tokens_as_it_was_trained_with_though_its_tokenizer_cuts_before(
    model,
):
    (model / "tokenizer_config.json").unlink()
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["truncation"] = {
        "max_length": 4,
        "stride": 0,
        "strategy": "LongestFirst",
        "direction": "Right",
    }
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    text = "w7 w8 w9 w10"
    assert "more than 4 tokens" in str(open_embedder(settings(model)).embed_documents([text])[0])
    (model / "sentence_bert_config.json").write_text('{"max_seq_length": 8}')
    assert open_embedder(settings(model)).embed_documents([text])[0].shape == (8,)


# The hub


def test_a_model_is_downloaded_once_and_asked_for_at_its_revision(hub, model, tmp_path):
    first = hub.commit(model)
    home = hub.settings(tmp_path / "home")
    found = identified("all-MiniLM-L6-v2", **home)
    assert (found["place"], found["revision"], found["dimension"]) == (NAME, first, 8)
    assert hub.sent("model.onnx") == 1
    hub.requests.clear()
    assert identified(NAME.upper(), **home)["digest"] == found["digest"]
    assert hub.requests == [], "the cache has it"
    (model / "sentence_bert_config.json").write_text('{"max_seq_length": 5}')
    second = hub.commit(model)
    empty = hub.settings(tmp_path / "another home")
    assert identified(NAME, first, **empty)["digest"] == found["digest"]
    assert identified(NAME, **empty)["revision"] == second
    assert identified(NAME, first, **empty, HF_HUB_OFFLINE="1")["revision"] == first
    hub.commits.pop(first)
    gone = identified(NAME, first, **hub.settings(tmp_path / "third home"))
    assert (
        f"does not have its revision {first} any more; `rag-index rebuild INDEX` takes the"
        " present one" in gone["error"]
    )


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "answers 401: it needs a token"),
        (403, "answers 403: it needs a token"),
        (404, "answers 404"),
        (503, "answers 503"),
    ],
)
def test_a_hub_that_refuses_is_named_and_so_is_the_way_around_it(
    hub, model, tmp_path, status, said
):
    hub.commit(model)
    hub.status = status
    answer = identified(NAME, **hub.settings(tmp_path / "home"))
    assert f"is not on this machine and cannot be downloaded ({hub.url} {said}" in answer["error"]
    assert f"`hf download {SOURCE} --local-dir all-MiniLM-L6-v2`" in answer["error"]
    assert answer["error"].endswith('set model = "all-MiniLM-L6-v2"')
    assert (answer["class"], len(hub.requests)) == ("ModelMissing", 1), hub.requests


def test_without_a_network_the_reason_and_the_command_come_at_once(tmp_path):
    home = {"HF_HOME": str(tmp_path / "home")}
    offline = identified(NAME, **home, HF_HUB_OFFLINE="1")
    assert "cannot be downloaded (HF_HUB_OFFLINE is set): run `hf download" in offline["error"]
    nobody = identified(NAME, "c" * 40, **home, HF_ENDPOINT="http://127.0.0.1:9")
    assert "http://127.0.0.1:9 cannot be reached: [Errno 111] Connection refused" in nobody["error"]
    assert f"--revision {'c' * 40} --local-dir" in nobody["error"]
    proxied = identified(
        NAME, **home, HF_ENDPOINT="https://hub.invalid", HTTPS_PROXY="http://127.0.0.1:9"
    )
    assert (
        "the proxy http://127.0.0.1:9 that the environment names accepts no connection"
        in proxied["error"]
    )


def test_a_hub_whose_certificate_is_not_trusted_is_refused_until_ssl_cert_file_names_its_authority(
    hub, model, tmp_path
):
    hub.commit(model)
    authority = PrivateAuthority(tmp_path)
    with TlsFront(authority, hub.server_port) as front:
        home = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": f"https://localhost:{front.port}"}
        assert "its certificate is not trusted" in identified(NAME, **home)["error"]
        assert identified(NAME, **home, SSL_CERT_FILE=str(authority.certificate))["dimension"] == 8


def test_a_process_that_is_killed_while_it_downloads_leaves_nothing_that_is_taken_for_a_model(
    hub, model, tmp_path
):
    """The rows of a signed token are 0, and the pooling by name would give other vectors than the
    file that is late."""
    commit = hub.commit(model)
    digest = identify(settings(model)).digest
    for number, file in enumerate(("model.onnx", "1_Pooling/config.json", "tokenizer.json")):
        # A cache of its own: files are downloaded side by side, so the one before may have all but
        # its own.
        home = hub.settings(tmp_path / f"home {number}")
        hub.stops_in = file
        hub.stopped.clear()
        process = started(NAME, **home)
        eventually(hub.stopped.is_set, f"no request for {file}")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        offline = identified(NAME, **home, HF_HUB_OFFLINE="1")
        assert "HF_HUB_OFFLINE is set" in offline["error"], file
        hub.stops_in = ""
        found = identified(NAME, **home)
        assert (found["revision"], found["pooling"]) == (
            commit,
            "MEAN, by 1_Pooling/config.json",
        ), file
        assert found["digest"] == digest, file


def test_a_cache_of_another_program_that_lacks_a_file_is_completed(hub, model, tmp_path):
    hub.commit(model)
    home = hub.settings(tmp_path / "home")
    found = identified(NAME, **home)
    (repository,) = (tmp_path / "home" / "hub").glob("models--*")
    shutil.rmtree(repository / "trees")  # which older versions of the hub's library do not write
    (repository / "snapshots" / found["revision"] / "tokenizer.json").unlink()
    assert identified(NAME, **home)["digest"] == found["digest"]


def test_a_file_that_the_hub_sends_by_half_is_no_model(hub, model, tmp_path):
    hub.commit(model)
    hub.stops_in = "model.onnx"
    hub.go_on.set()  # it ends the connection in the middle
    home = hub.settings(tmp_path / "home")
    answer = identified(NAME, first=WITHOUT_PAUSES, **home, HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert "cannot be downloaded" in answer["error"]


def test_a_repository_without_the_model_is_named(hub, model, tmp_path):
    (model / "tokenizer.json").unlink()
    hub.commit(model)
    answer = identified(NAME, **hub.settings(tmp_path / "home"))
    assert (
        f"{SOURCE} on {hub.url} does not have all files of the model {NAME} (model.onnx,"
        " tokenizer.json)" in answer["error"]
    )


@pytest.mark.mount
def test_a_full_disk_is_named_with_its_folder(hub, model, small_disk):
    hub.commit(model)
    home = small_disk.path / "home"
    home.mkdir()
    small_disk.fill()
    answer = identified(NAME, **hub.settings(home))
    assert f"cannot be written to {home}/hub (No space left on device)" in answer["error"]
    small_disk.ballast.unlink()
    assert identified(NAME, **hub.settings(home))["dimension"] == 8


def test_a_folder_from_the_command_in_the_message_is_the_model_of_the_hub(hub, model, tmp_path):
    hub.commit(model)
    by_name = identified(NAME, **hub.settings(tmp_path / "home"))
    brought = shutil.copytree(model, tmp_path / "all-MiniLM-L6-v2")
    by_folder = identify(settings(brought))
    assert (by_folder.digest, by_folder.dimension) == (by_name["digest"], by_name["dimension"])
    assert (by_folder.place, by_folder.revision) == (str(brought), "")


def test_two_processes_that_download_one_model_both_have_it(hub, model, tmp_path):
    hub.commit(model)
    home = hub.settings(tmp_path / "home")
    processes = [started(NAME, **home) for _ in range(2)]
    found = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    assert found[0]["digest"] == found[1]["digest"]
