"""No secret that the settings know is said or kept, whatever a library or a server makes of it."""

import html
import json
import logging
import pickle
import subprocess
import sys
from urllib.parse import quote, quote_plus

import pytest

from rag_index.core.settings import EmbedderSettings, StoreSettings, load_settings
from rag_index.errors import StoreRefused, TransientError, one_line
from rag_index.redaction import keep_secret, keep_url, redacted
from tests.fakes.qdrant import FakeQdrant
from tests.project import Project, run_here

KEY = 'qd-7f3 Kp9+zT1/vX&w2"Rk8'


def test_a_secret_is_masked_in_each_way_of_writing_it_also_where_a_message_is_cut():
    keep_secret(KEY)
    escaped = quote(KEY, safe="")
    in_urls = [
        quote(KEY),
        escaped,
        escaped.replace("%2F", "%2f").replace("%2B", "%2b"),
        quote_plus(KEY),
    ]
    for written in (
        KEY,
        *in_urls,
        html.escape(KEY),
        json.dumps(KEY),
        repr(KEY),
        repr(f"{KEY}\n".encode()),
    ):
        assert redacted(f"before {written} after").count("***") == 1
        assert "Kp9" not in redacted(written)
    assert one_line(f"{'x' * 290}{KEY}") == f"{'x' * 290}***", "no half of it is left"


def test_a_url_gives_its_password_and_secret_options():
    for url, said, left in (
        (
            "postgresql://ann:s3cret@h/d",
            "login of ann with s3cret to d",
            "login of ann with *** to d",
        ),
        (
            "postgresql://ann:p%40ss%2Fw@h/d",
            "p@ss/w or p%40ss%2Fw or p%40ss%2fw",
            "*** or *** or ***",
        ),
        ("postgresql://ann:pa/ss?w@h/d", "not pa/ss?w", "not ***"),
        (
            "http://ann:p@ss-word@gpu:8080#model",
            "ann p@ss-word Basic YW5uOnBAc3Mtd29yZA==",
            "ann *** Basic ***",
        ),
        (
            "mysql://h/d?ssl_key=/k.pem&password=hunter2",
            "hunter2 hunter22 /k.pem",
            "*** hunter22 /k.pem",
        ),
        (
            "https://issuer/keys?api_key=abcd-1234",
            "GET /keys?api_key=abcd-1234",
            "GET /keys?api_key=***",
        ),
        ("postgresql://h:5432/d?application_name=a", "h 5432 d a", "h 5432 d a"),
    ):
        keep_url(url)
        assert redacted(said) == left


@pytest.mark.parametrize(
    ("user", "password"), [("a", "o"), ("postgres", "postgres"), ("root", "password")]
)
def test_a_secret_that_any_message_has_by_chance_is_masked_in_addresses_alone(user, password):
    keep_url(f"postgresql://{user}:{password}@h/postgres")
    plain = (
        "no password supplied for postgres: correct user and password in [source] url, as in"
        " key=value or one"
    )
    assert redacted(plain) == plain
    said = "no route to postgresql://{0}:{1}@h/postgres, options password={1}"
    assert redacted(said.format(user, password)) == said.format(user, "***")


def test_logs_of_libraries_and_tracebacks_have_none(caplog):
    keep_secret(KEY)
    logger = logging.getLogger("a.library")
    try:
        try:
            raise ValueError(f"Illegal header value {KEY!r}")
        except ValueError as error:
            raise TransientError("it failed") from error
    except TransientError:
        logger.exception("request with %s and %d to %r", {"api-key": KEY}, 3, [KEY])
    logger.warning(ValueError(KEY))
    logger.warning("with %(key)s", {"key": KEY})
    assert "Kp9" not in caplog.text
    assert "request with {'api-key': '***'} and 3 to ['***']" in caplog.text
    assert "ValueError: Illegal header value '***'" in caplog.text


def test_an_error_holds_none_and_a_process_that_is_sent_settings_masks_theirs(monkeypatch):
    store, error = StoreSettings(url="http://h", api_key=KEY), TransientError(f"{KEY} is wrong")
    assert error.args == ("*** is wrong",)
    assert pickle.loads(pickle.dumps(error)).args == error.args
    monkeypatch.setenv("EMBEDDER_KEY", "sk-emb-99")
    embedder = EmbedderSettings(
        kind="openai", model="m", url="http://e", api_key_env="EMBEDDER_KEY"
    )
    program = (
        "import pickle, sys; from rag_index.errors import TransientError; held ="
        f" pickle.load(sys.stdin.buffer); print(pickle.dumps(TransientError('{KEY} sk-emb-99"
        " end')).count(b'*** *** end'))"
    )
    sent = pickle.dumps((store, embedder))
    done = subprocess.run(
        [sys.executable, "-c", program], input=sent, capture_output=True, check=True
    )
    assert done.stdout == b"1\n"


@pytest.mark.parametrize("error", ["no access for {}", "<html><b>api-key: {}</b></html>"])
def test_no_command_and_no_file_repeats_a_key_that_a_server_repeats(tmp_path, monkeypatch, error):
    with FakeQdrant() as qdrant:
        extra = (
            f'[store]\nurl = "{qdrant.url}"\n[store.server]\ngrpc_port = 0\n[run]\nmetrics_file ='
            ' "m.prom"\n'
        )
        project = Project(tmp_path / "project", extra=extra).fill(2)
        monkeypatch.setenv("RAG_INDEX_STORE__API_KEY", f"\ufeff{KEY}\r\n")
        for arguments in (
            ["--debug", "index-all"],
            ["plan"],
            ["search", "note", "--json"],
            ["doctor", "--json"],
        ):
            qdrant.break_next(status=403, times=99, error=error.format(KEY))
            said = run_program_here(project.config, *arguments)
            assert "Kp9" not in said
            assert "***" in said
    kept = [
        file
        for file in project.config.parent.rglob("*")
        if file.is_file() and b"Kp9" in file.read_bytes()
    ]
    assert kept == []


def run_program_here(config, *arguments):
    """Return all that a command prints, with the traceback that it is asked for."""
    try:
        return "".join(run_here(config, *arguments, code=1))
    except AssertionError as error:
        return str(error)


def test_config_shows_no_secret_of_an_address_or_a_plug_in(tmp_path):
    extra = (
        '[embedder.options]\napi_key = "plug-key-77"\nsize = 3\n[retrieve]\nreranker ='
        ' "http://ann:rr-pw-12@gpu:1"\n[serve]\njwt_keys ='
        ' "https://issuer/keys?token=jk-4711"\njwt_audience = "us"\n'
    )
    project = Project(tmp_path / "project", extra=extra)
    out, _ = run_here(project.config, "config", "--json")
    assert not [secret for secret in ("plug-key", "rr-pw", "jk-4711") if secret in out]
    assert "http://ann:***@gpu:1" in out
    load_settings(project.config)
    assert str(StoreRefused("plug-key-77, rr-pw-12 and jk-4711")) == "***, *** and ***"
