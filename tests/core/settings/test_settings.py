"""Settings: a file, variables that override it, and one line with value and remedy for each
mistake."""

import os
import pickle
import sys
import traceback
from pathlib import Path
from typing import get_args

import click
import pytest

from rag_index.cli import api_key_in
from rag_index.components.chunking.code.languages import CODE_LANGUAGES
from rag_index.core.settings import Settings, find_config, load_settings, origins, run_settings
from rag_index.core.settings.index import CodeLanguage, IndexSettings, is_named_like_a_secret
from rag_index.core.settings.plugins import check_own_packages
from rag_index.core.settings.sections import EmbedderSettings, ServerSettings
from rag_index.errors import SettingsError, UnknownIndex
from tests.fakes.qdrant import FakeQdrant
from tests.forked_program import run_program
from tests.strangers import NOBODY, needs_second_user

SOURCE = '[source]\nurl = "sqlite:///a.db"\n'
INDEX = '[[indexes]]\nname = "comments"\ntable = "comment"\nkey = "id"\ntext = "body"\n'
VALID = SOURCE + INDEX
SERVER = "[store]\nurl = 'http://h'\n" + VALID
OPENAI = (
    "[embedder]\nkind = 'openai'\nmodel = 'm'\nurl = 'http://e'\napi_key_env = 'EMBEDDER_KEY'\n"
    + VALID
)
TWICE = OPENAI.replace("api_key_env", "hosts = ['http://b']\napi_key_env")
CODE = '[[indexes]]\nname = "code"\nkind = "code"\nroot = "src"\n'
SECRETS = """
password passwd pwd Password user_pass userPassword user_newpasswd mot_de_passe passwordHash PasswordSalt password2
encrypted_password hash hashes salt user_form_salt token reset_token remember_token accesstoken secret clientSecret
two_factor_secret two_factor_recovery_codes api_key apiKey APIKey privateKey ssh_key authkey license_key otpKey
user_activation_key activation_code activation unlock_code otp pin session sessionid session_data credentials
"""
OTHERS = """
hashtag hashtags tokenizer keyword keywords key meta_key sort_key public_key api_keyword country_code pin_code salted
basalt secretary token_count tokens_used session_title password_changed_at passage compass author passenger geohash
description code postal_code pinned signature title body
"""
SENTENCE = "Represent this sentence for searching relevant passages: "
WEB = "Instruct: Given a web search query, retrieve relevant passages that answer the query\n"
MISTAKES = [
    ("x = = 1", "is not TOML: Invalid value (at line 1, column 5)"),
    ("", "[[indexes]] is missing: each names a table, its key and its text"),
    (INDEX, "[source] url is missing: it is the database to read, for example sqlite:///file.db"),
    ("[paralell]\nworkers = 2\n" + VALID, "unknown key 'paralell', did you mean 'parallel'?"),
    (
        "[parallel]\nworkrs = 2\n" + VALID,
        "unknown key 'workrs' in [parallel], did you mean 'workers'?",
    ),
    (
        "[run]\nzzz = 2\n" + VALID,
        "unknown key 'zzz' in [run]; the keys are delete_guard, tolerate_failed, wait_for",
    ),
    (
        "[run]\nwait = 5\n" + VALID,
        "unknown key 'wait' in [run]; a command waits at its start as `--wait` says",
    ),
    ("path = 'x'\n" + VALID, "unknown key 'path'; the path of the store is a key of [store]"),
    ("source = 's3cret'\n" + INDEX, "[source] should be a table of keys"),
    (
        VALID + "parts = 3\n",
        "index comments: parts should be a list of tables; begin each with [[indexes.parts]]",
    ),
    (
        VALID.replace('"body"', "5"),
        "index comments: text should be a valid string, or should be a valid list, not 5",
    ),
    (VALID.replace('name = "comments"\n', ""), "index number 1: name is missing"),
    (
        VALID.replace("comments", "a__3"),
        "index a__3: the name 'a__3' must not contain two underscores",
    ),
    (
        VALID + INDEX,
        "rag-index.toml: two indexes are named 'comments'; give each index its own name",
    ),
    (
        "[source]\nurl = 's3cret'\n" + INDEX,
        "[source] url is not a database URL; write it as sqlite:///file.db",
    ),
    ("[serve]\ntokens = 's3cret'\n" + VALID, "[serve] tokens should be a valid list"),
    (
        "[store]\nurl = '127.0.0.1:6333'\n" + VALID,
        "[store] url is not an address; write it as http://host:port",
    ),
    (
        "[store]\nurl = 'http://u:s3cret@h'\n" + VALID,
        "[store] url must not hold a user and password",
    ),
    ("[store]\nurl = 'http://h:1?api_key=s3cret'\n" + VALID, "[store] url must not hold a query"),
    (
        "[parallel]\nworkers = true\n" + VALID,
        "[parallel] workers should be a number, or should be 'auto', not True",
    ),
    (
        "[embedder]\nkind = 'olama'\n" + VALID,
        "kind should be 'local', 'ollama', 'openai', 'fastembed' or ",
    ),
    (
        "[embedder]\nkind = 'ollama'\n" + VALID,
        "[embedder]: kind 'ollama' needs a model: the name by which",
    ),
    (
        "[embedder]\nmodel = 'bge-m3'\n" + VALID,
        "[embedder]: model 'bge-m3' does not exist for kind 'local'",
    ),
    (
        "[embedder]\nkind = 'openai'\nmodel = 'm'\n" + VALID,
        "[embedder]: kind 'openai' needs a server, for example url",
    ),
    (TWICE, "[embedder]: url and hosts name servers twice: give one of them"),
    ("[parallel]\naddress = 'h:1'\n" + VALID, "is not the address of a Dask scheduler"),
    (
        VALID.replace('key = "id"\n', ""),
        "index comments: key and text must name at least one column each",
    ),
    (VALID.replace('table = "comment"\n', ""), "index comments: needs either table or query"),
    (VALID.replace("table", "query") + "schema = 'x'\n", "index comments: schema belongs to table"),
    (VALID.replace("body", "{a"), "index comments: text '{a' is not a template: expected '}'"),
    (VALID.replace("body", "{{a}}"), "text '{{a}}' is a template that names no column"),
    (
        VALID + "chunk_overlap = 600\n",
        "chunk_overlap 600 is more than half of chunk_chars 1000; lower it",
    ),
    (VALID + "payload = ['_rag']\n", "index comments: payload column _rag is reserved"),
    (
        VALID + "language = 'klingon'\n",
        "'klingon' is not a known language; use none or one or several of arabic",
    ),
    (
        VALID + "language_column = 'l'\n",
        "language is 'english'; list all languages of column 'l' there",
    ),
    (
        CODE.replace('root = "src"\n', ""),
        "index code: root is missing: name the folder with the files",
    ),
    (
        CODE + 'key = "id"\n',
        "index code: key belongs to kind 'sql', but this index has kind 'code'; remove one of",
    ),
    (CODE + "chunk_overlap = 5\n", "index code: chunk_overlap cannot be used with kind 'code'"),
    (
        CODE + "required_filter = {author = 'kim'}\n",
        "required_filter names 'author', but payload has no such column (",
    ),
    (CODE + 'languages = {h = "cpp"}\n', "index code: languages.h should match pattern"),
]
EXAMPLES = [
    ("source.timeout", "7", 7),
    ("embedder.hosts", '["http://a", "http://b/"]', ["http://a", "http://b"]),
    ("embedder.hosts", "http://a, http://b", ["http://a", "http://b"]),
    ("embedder.query_prefix", "[q] ", "[q] "),
    ("store.path", "/tmp/store", Path("/tmp/store")),
    ("store.api_key", "12345", None),
    ("store.server", '{"grpc_port": 32}', ServerSettings(grpc_port=32)),
    ("parallel.workers", "3", 3),
    ("run.metrics_file", "/run.prom", Path("/run.prom")),
    ("serve.hosts", "Search.example.com, [::2]", ["search.example.com", "[::2]"]),
]
"""A key of each type: a value in the environment, and the same value in the settings (None for a
secret).

tests/docs/test_commands.py shows that the variable of every key is read.
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return an empty folder, which is the current one."""
    path = tmp_path / "desk"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


@pytest.fixture
def load(folder):
    """Return a function that loads the settings from a text."""

    def load(text=VALID, **overrides):
        (folder / "rag-index.toml").write_text(text, encoding="utf-8")
        return load_settings(**overrides)

    return load


@pytest.fixture
def refused(load):
    """Return a function that gives the message for a text: one line, exit code 2, and no secret
    anywhere."""

    def refused(text=VALID):
        with pytest.raises(SettingsError) as caught:
            load(text)
        message = str(caught.value)
        assert "\n" not in message
        assert caught.value.exit_code == 2
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))
        return message

    return refused


def test_paths_are_relative_to_the_file_and_not_to_the_current_folder(
    load, folder, monkeypatch, tmp_path
):
    store = (
        '[store]\npath = "data/../store"\n[ledger]\nurl = "sqlite:///l.db"\n[run]\nmetrics_file ='
        ' "m.prom"\n'
    )
    load(store + VALID)
    monkeypatch.chdir(tmp_path)
    settings = load_settings("desk/rag-index.toml")
    assert (settings.path, settings.folder) == (folder / "rag-index.toml", folder)
    assert settings.store.path == folder / "data/../store"
    assert settings.run.metrics_file == folder / "m.prom"
    assert settings.source_url.database == str(folder / "a.db")
    assert settings.ledger_url.database == str(folder / "l.db")


def test_data_is_the_folder_of_all_that_has_no_place_of_its_own(
    load, folder, monkeypatch, tmp_path
):
    def places(text=VALID):
        settings = load(text)
        return settings.data, settings.store.path, Path(settings.ledger_url.database)

    kept, own = folder / ".rag-index", folder / "../kept"
    assert places() == (kept, kept / "qdrant", kept / "ledger.db")
    assert places('data = "../kept"\n' + VALID) == (own, own / "qdrant", own / "ledger.db")
    given = 'data = "/var"\n[store]\npath = "points"\n[ledger]\nurl = "sqlite:///l.db"\n'
    assert places(given + VALID)[1:] == (folder / "points", folder / "l.db")
    monkeypatch.setenv("RAG_INDEX_DATA", str(tmp_path / "var"))
    assert places()[1:] == (tmp_path / "var/qdrant", tmp_path / "var/ledger.db")
    assert origins(folder / "rag-index.toml")["data",] == "RAG_INDEX_DATA"


def test_a_url_without_a_driver_gets_ours(load):
    assert (
        load('[source]\nurl = "postgresql://u:p@h/d"\n' + INDEX).source_url.drivername
        == "postgresql+psycopg"
    )
    assert load('[source]\nurl = "postgres://u:p@h/d"\n' + INDEX).source_url.password == "p"
    assert (
        load('[source]\nurl = "mssql+pyodbc://h/d"\n' + INDEX).source_url.drivername
        == "mssql+pyodbc"
    )


@pytest.mark.parametrize(
    ("name", "project"),
    [
        ("desk", "desk"),
        ("My Desk!", "My-Desk"),
        ("__a__b__", "a_b"),
        ("проект", "rag-index"),
        ("a" * 80, "a" * 60),
    ],
)
def test_the_default_project_is_the_name_of_the_folder(tmp_path, name, project):
    path = tmp_path / name / "rag-index.toml"
    path.parent.mkdir()
    path.write_text(VALID)
    settings = load_settings(path)
    assert (settings.project, settings.alias("comments")) == (project, f"{project}_comments")
    assert load_settings(path) == settings
    assert (
        Settings.model_validate({**settings.model_dump(by_alias=True), "project": project}).project
        == project
    )


def test_the_file_is_found_here_above_and_by_name(folder, monkeypatch, tmp_path):
    with pytest.raises(
        SettingsError,
        match=r"there is no rag-index\.toml here or above; `rag-index init` writes one",
    ):
        find_config()
    (tmp_path / "rag-index.toml").write_text("")
    assert find_config() == tmp_path / "rag-index.toml"
    (folder / "rag-index.toml").write_text("")
    assert find_config() == folder / "rag-index.toml"
    (folder / "other.toml").write_text("")
    monkeypatch.setenv("RAG_INDEX_CONFIG", "other.toml")
    assert find_config() == folder / "other.toml"
    assert find_config("rag-index.toml") == folder / "rag-index.toml"
    for missing in ("nothing.toml", folder):
        with pytest.raises(SettingsError, match="there is no settings file"):
            find_config(missing)


@needs_second_user
@pytest.mark.parametrize(
    ("place", "owner", "group", "mode", "writer"),
    [
        ("rag-index.toml", NOBODY, 0, 0o644, "user nobody"),
        ("rag-index.toml", 0, NOBODY, 0o664, "group nogroup"),
        ("rag-index.toml", 0, 0, 0o664, ""),  # a group of root's own: with it goes a umask of 002
        ("rag-index.toml", 0, 0, 0o646, "everybody"),
        ("", NOBODY, 0, 0o755, "user nobody"),
        ("", 0, 0, 0o1777, "everybody"),  # the ledger beside the file would be anybody's
        ("..", NOBODY, 0, 0o1755, "user nobody"),
        ("..", 0, 0, 0o777, "everybody"),
        ("..", 0, 0, 0o1777, ""),
    ],
)
def test_settings_of_others_are_not_read_unless_they_are_named(
    folder, monkeypatch, place, owner, group, mode, writer
):
    file = folder / "rag-index.toml"
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    file.write_text(VALID)
    os.chown(folder / place, owner, group)
    (folder / place).chmod(mode)
    assert find_config(file) == file
    if not writer:
        assert find_config() == file
        return
    what = "it" if file.samefile(folder / place) else (folder / place).resolve()
    with pytest.raises(SettingsError) as caught:
        find_config()
    assert (
        str(caught.value) == f"{file} was found, but not read, because {writer} may write {what}: "
        "if you mean these settings, name the file with --config or RAG_INDEX_CONFIG"
    )


@needs_second_user
def test_a_key_is_not_sent_where_settings_of_another_user_say(folder):
    file = folder / "rag-index.toml"
    with FakeQdrant() as server:
        file.write_text(f'{SOURCE}[store]\nurl = "{server.url}"\n{INDEX}')
        os.chown(file, NOBODY, 0)
        ended = run_program(["status"], {**os.environ, "RAG_INDEX_STORE__API_KEY": "root's own"})
        asked = server.requests("")
        named = run_program(["--config", str(file), "status"], {**os.environ})
    assert (ended.returncode, asked) == (2, 0), ended.stderr
    assert named.returncode == 0, named.stderr


@needs_second_user
def test_a_link_to_settings_is_as_good_as_its_owner_and_its_target(folder, tmp_path):
    (target := tmp_path / "elsewhere" / "desk.toml").parent.mkdir()
    target.write_text(VALID)
    (folder / "rag-index.toml").symlink_to(target)
    assert find_config() == folder / "rag-index.toml"
    for path in (target, target.parent, folder / "rag-index.toml"):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        with pytest.raises(SettingsError, match="because user nobody may write"):
            find_config()
        os.chown(path, 0, 0, follow_symlinks=False)


def test_columns_that_are_named_like_secrets():
    assert [name for name in SECRETS.split() if not is_named_like_a_secret(name)] == []
    assert [name for name in OTHERS.split() if is_named_like_a_secret(name)] == []


def test_indexes_by_name_in_the_order_of_the_file(load):
    settings = load(
        SOURCE + "".join(INDEX.replace("comments", name) for name in ("titles", "comments", "logs"))
    )
    assert [index.name for index in settings.named(None)] == ["titles", "comments", "logs"]
    assert [index.name for index in settings.named(["logs", "titles", "logs"])] == [
        "titles",
        "logs",
    ]
    with pytest.raises(
        UnknownIndex, match=r"no index 'coments', did you mean 'comments'\?.*titles, comments, logs"
    ):
        settings.named(["logs", "coments"])


def test_settings_are_frozen_survive_pickle_and_redact_their_secrets(load):
    settings = load(
        "[source]\nurl = 'postgresql://reader:s3cret@h/d'\n[store]\nurl = 'http://h'\napi_key ="
        " 's3cret'\n[ledger]\nurl = 'postgresql://writer:s3cret@h/d'\n" + INDEX
    )
    with pytest.raises(ValueError, match="frozen"):
        settings.embedder.model = "other"
    assert pickle.loads(pickle.dumps(settings)) == settings
    for shown in (
        repr(settings),
        repr(settings.store),
        settings.model_dump_json(),
        str(settings.source_url),
    ):
        assert "s3cret" not in shown
    assert settings.store.secret_api_key() == settings.source_url.password == "s3cret"


def test_a_run_overrides_the_keys_that_it_is_given(load, folder):
    load("[parallel]\nworkers = 3\nserial = true\n" + VALID)
    settings = run_settings(folder / "rag-index.toml", workers=2, wait=5, serial=False, host=None)
    assert (settings.parallel.workers, settings.parallel.serial, settings.run.wait) == (
        2,
        True,
        5.0,
    )
    assert run_settings(None).parallel.workers == 3
    assert run_settings(None, host="::1", port=0).serve.host == "::1"
    with pytest.raises(SettingsError, match="workers"):
        run_settings(None, workers=0)


def test_text_is_a_column_a_list_of_columns_or_a_template():
    def index(text):
        return IndexSettings(name="n", table="t", key="k", text=text)

    assert index("body").text_columns == ["body"]
    assert index(["a", "b", "a"]).text_columns == ["a", "b"]
    assert index(["{a}"]).text_columns == ["{a}"]
    assert index("{a}: {b} {{x}} {a}").text_columns == ["a", "b"]
    assert index("{a b.c[0]}").text_columns == ["a b.c[0]"]


@pytest.mark.parametrize(
    ("model", "prefixes"),
    [
        ("nomic-embed-text", ("search_document: ", "search_query: ")),
        ("hf.co/nomic-ai/nomic-embed-text-v1.5-GGUF:Q8_0", ("search_document: ", "search_query: ")),
        ("text-embedding-nomic-embed-text-v1.5@q8_0", ("search_document: ", "search_query: ")),
        ("nomic-embed-text-v2-moe:latest", ("search_document: ", "search_query: ")),
        ("modernbert-embed-large", ("search_document: ", "search_query: ")),
        ("multilingual-e5-large-instruct", ("", WEB + "Query: ")),
        ("jeffh/intfloat-e5-base-v2:f16", ("passage: ", "query: ")),
        ("Alibaba-NLP/gte-Qwen2-1.5B-instruct", ("", WEB + "Query: ")),
        ("qwen3-embedding:0.6b", ("", WEB + "Query:")),
        ("dengcao/Qwen3-Embedding-8B:Q5_K_M", ("", WEB + "Query:")),
        ("localhost:5000/library/qwen3-embedding", ("", WEB + "Query:")),
        ("/models/qwen3-embedding-0.6b-q8_0.gguf", ("", WEB + "Query:")),
        ("bge-large", ("", SENTENCE)),
        ("@cf/baai/bge-base-en-v1.5", ("", SENTENCE)),
        (
            "/hub/models--BAAI--bge-small-en-v1.5/snapshots/5c38ec7c405ec4b44b94cc5a9bb96e735b38267a/",
            ("", SENTENCE),
        ),
        ("snowflake-arctic-embed:335m", ("", SENTENCE)),
        ("snowflake-arctic-embed-m-v1.5", ("", SENTENCE)),
        ("snowflake-arctic-embed2:568m", ("", "query: ")),
        (
            "hf.co/jinaai/jina-embeddings-v5-text-small-retrieval-GGUF:Q8_0",
            ("Document: ", "Query: "),
        ),
        ("embedding-gemma-300m-qat", ("title: none | text: ", "task: search result | query: ")),
        ("bge-m3", ("", "")),
        ("text-embedding-3-large", ("", "")),
        ("tiny-embed", ("", "")),
        ("my-e5-largest", ("", "")),
        ("/srv/e5-base-trials/mini", ("", "")),
    ],
)
def test_known_models_get_their_prefixes(model, prefixes):
    settings = EmbedderSettings(kind="ollama", model=model)
    assert (settings.document_prefix, settings.query_prefix) == prefixes
    given = EmbedderSettings(kind="ollama", model=model, document_prefix="", query_prefix="q: ")
    assert (given.document_prefix, given.query_prefix) == ("", "q: ")


def test_languages_are_those_that_are_known(load):
    assert set(get_args(CodeLanguage)) == {*CODE_LANGUAGES, "text"}
    assert load(CODE + 'languages = {".h" = "cpp"}\n').indexes[0].languages == {".h": "cpp"}
    assert (
        load(VALID + 'language = ["english", "german"]\nlanguage_column = "l"\n')
        .indexes[0]
        .language_column
        == "l"
    )
    assert (
        load(VALID + 'language = " german ,english,german"\n').indexes[0].language
        == "german, english"
    )


def test_an_index_of_source_code_needs_no_database(load):
    settings = load(CODE)
    assert (settings.indexes[0].kind, settings.root(settings.indexes[0])) == (
        "code",
        settings.folder / "src",
    )
    with pytest.raises(SettingsError, match="only indexes of kind sql need it"):
        _ = settings.source_url


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_each_mistake_is_one_line_with_place_value_and_remedy(refused, text, message):
    full_message = refused(text)
    assert message in full_message
    assert "rag-index.toml" in full_message


@pytest.mark.parametrize(("name", "value", "expected"), EXAMPLES)
def test_a_key_of_each_type_can_come_from_the_environment(load, monkeypatch, name, value, expected):
    section, key = name.split(".")
    monkeypatch.setenv(f"RAG_INDEX_{section.upper()}__{key.upper()}", value)
    found = getattr(getattr(load(), section), key)
    assert found.get_secret_value() == value if expected is None else found == expected


def test_a_variable_for_a_key_of_a_table_overrides_one_for_the_table(load, monkeypatch):
    table = "RAG_INDEX_STORE__SERVER"
    text = VALID + "[store.server]\ngrpc_port = 5\n"
    assert origins(load(text).path)["store", "server", "grpc_port"] == "rag-index.toml"
    monkeypatch.setenv(f"{table}__GRPC_PORT", "6")
    monkeypatch.setenv(table, '{"grpc_port": 7}')
    settings = load(text)
    assert settings.store.server == ServerSettings(grpc_port=6)
    assert origins(settings.path)["store", "server", "grpc_port"] == f"{table}__GRPC_PORT"


def test_the_environment_overrides_only_the_keys_that_it_names(load, monkeypatch):
    monkeypatch.setenv("RAG_INDEX_PROJECT", "2024")
    monkeypatch.setenv("RAG_INDEX_PARALLEL__WORKERS", "2")
    monkeypatch.setenv("rag_index_run__wait_for_recovery", "3")
    monkeypatch.setenv("RAG_INDEX_TEST_SOMETHING", "x")
    monkeypatch.setenv("RAG_INDEX_STORE__API_KEY", "")
    monkeypatch.setenv("RAG_INDEX_STORE__URL", "")
    monkeypatch.setenv("RAG_INDEX_EMBEDDER__DOCUMENT_PREFIX", "")
    settings = load(
        "[parallel]\nworkers = 5\nworker_memory = 900\n[store]\nurl ="
        " 'http://q'\n[store.server]\ngrpc_port = 5\n[embedder]\nkind = 'ollama'\nmodel ="
        " 'nomic-embed-text'\n" + VALID
    )
    assert settings.project == "2024"
    assert (
        settings.parallel.workers,
        settings.parallel.worker_memory,
        settings.run.wait_for_recovery,
    ) == (2, 900, 3.0)
    assert settings.store.server == ServerSettings(grpc_port=5)
    assert (settings.store.url, settings.store.api_key) == (None, None)
    assert (settings.embedder.document_prefix, settings.embedder.query_prefix) == (
        "",
        "search_query: ",
    )
    assert run_settings(None, workers=4).parallel.workers == 4


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("RAG_INDEX_DATAS", "/var", "is not a setting, did you mean RAG_INDEX_DATA?"),
        (
            "RAG_INDEX_PARALELL__WORKERS",
            "2",
            "is not a setting, did you mean RAG_INDEX_PARALLEL__WORKERS?",
        ),
        ("RAG_INDEX_INDEXES", "[]", "is not a setting: indexes stand in the file"),
        ("RAG_INDEX_RUN__METRICS_FILE", "m.json", "should end with .prom"),
        ("RAG_INDEX_QQQ__ZZZ", "2", "is not a setting, `rag-index config` prints all keys"),
        ("RAG_INDEX_SOURCE_URL", "s3cret", "did you mean RAG_INDEX_SOURCE__URL?"),
        (
            "RAG_INDEX_PARALLEL__WORKERS",
            "two",
            "should be a whole number, or should be 'auto', not 'two'",
        ),
        ("RAG_INDEX_PARALLEL__WORKERS", "2 GB", "should be a whole number without a unit, or "),
        (
            "RAG_INDEX_RUN__WAIT_FOR_RECOVERY",
            "5m",
            "RECOVERY should be a number without a unit, not '5m'",
        ),
        ("RAG_INDEX_SOURCE__URL", "s3cret", "is not a database URL; write it as"),
        ("RAG_INDEX_EMBEDDER__HOSTS", "[http://a", 'is not a list; write it as ["one", "two"]'),
    ],
)
def test_each_mistake_in_the_environment_names_the_variable(
    refused, monkeypatch, variable, value, message
):
    monkeypatch.setenv(variable, value)
    full_message = refused()
    assert full_message.startswith(variable)
    assert message in full_message


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", " {}\t", "\ufeff{}", "\n\ufeff {} \u00a0\n"])
def test_what_surrounds_a_secret_or_any_variable_is_stripped(load, monkeypatch, around):
    values = {
        "RAG_INDEX_STORE__API_KEY": "a key",
        "RAG_INDEX_STORE__URL": "http://h:6333",
        "EMBEDDER_KEY": "sk-1",
        "RAG_INDEX_SOURCE__URL": "postgresql://ann:pw@h/d",
        "RAG_INDEX_RUN__WAIT_FOR_RECOVERY": "4",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, around.format(value))
    settings = load(OPENAI)
    assert (settings.store.secret_api_key(), settings.store.url) == ("a key", "http://h:6333")
    assert settings.embedder.api_key.get_secret_value() == "sk-1"
    assert (settings.source_url.database, settings.run.wait_for_recovery) == ("d", 4)


def test_a_key_is_stripped_a_zero_width_sign_at_its_end_refused_and_an_empty_key_none(
    load, refused, monkeypatch
):
    monkeypatch.setenv("RAG_INDEX_EMBEDDER__QUERY_PREFIX", "query: \r\n")
    settings = load(SERVER.replace("'http://h'", '\'http://h \'\napi_key = """\n  abc\n"""'))
    assert (settings.store.secret_api_key(), settings.store.url) == ("abc", "http://h")
    assert settings.embedder.query_prefix == "query: "
    monkeypatch.setenv("RAG_INDEX_STORE__API_KEY", "s3cret\u200b")
    assert "its character 7 is U+200B" in refused(SERVER)
    monkeypatch.setenv("RAG_INDEX_STORE__API_KEY", "\r\n")
    assert load(SERVER).store.api_key is None


@pytest.mark.parametrize(
    ("sign", "said"),
    [
        ("\n", "a line break"),
        ("\r", "a line break"),
        ("\t", "U+0009"),
        ("\x1b", "U+001B"),
        ("\x7f", "U+007F"),
        ("ä", "U+00E4 LATIN SMALL LETTER A WITH DIAERESIS"),
        ("–", "U+2013 EN DASH"),
        ("\u200b", "U+200B ZERO WIDTH SPACE"),
        ("\ufeff", "U+FEFF ZERO WIDTH NO-BREAK SPACE"),
    ],
)
def test_a_sign_that_no_header_takes_is_refused_by_the_name_of_the_variable(
    load, refused, monkeypatch, sign, said
):
    monkeypatch.setenv("RAG_INDEX_STORE__API_KEY", f"s3c{sign}ret")
    assert refused(SERVER).startswith(
        f"RAG_INDEX_STORE__API_KEY cannot be sent: its character 4 is {said};"
    )
    monkeypatch.delenv("RAG_INDEX_STORE__API_KEY")
    monkeypatch.setenv("EMBEDDER_KEY", f"s3c{sign}ret")
    assert f"the key in EMBEDDER_KEY cannot be sent: its character 4 is {said};" in refused(OPENAI)
    with pytest.raises(
        click.UsageError, match="--api-key-env: the key in EMBEDDER_KEY cannot be sent"
    ):
        api_key_in("EMBEDDER_KEY")


def test_a_server_with_a_secret_in_its_address_is_refused_without_it(refused):
    for given in ("http://h:1?api_key=s3cret", "http://ann:s3cret@h:1"):
        assert "must not hold" in refused(
            f"[embedder]\nkind = 'ollama'\nmodel = 'm'\nhosts = ['{given}']\n{VALID}"
        )


@pytest.mark.parametrize("name", ["flows", "tasks"])
@pytest.mark.parametrize("form", ["{}/__init__.py", "{}.py"])
def test_another_package_of_that_name_is_said(tmp_path, monkeypatch, name, form):
    check_own_packages()
    file = tmp_path / form.format(name)
    file.parent.mkdir(exist_ok=True)
    file.write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in [module for module in sys.modules if module.split(".")[0] in ("flows", "tasks")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(
        SettingsError, match=f"of the packages named '{name}' Python finds the one in {tmp_path}"
    ):
        check_own_packages()
