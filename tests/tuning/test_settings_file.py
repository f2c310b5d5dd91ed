"""Writing keys into a settings file that a person wrote."""

import stat

import pytest

from rag_index.cli.settings import write_keys
from rag_index.errors import SettingsError
from rag_index.settings import load_settings

TEXT = """\
# Our service desk.   Ask Ada before you change it.
project = "desk"

[source]
url = "sqlite:///source.db"  # a copy, made at night

[embedder]
kind = "ollama"          # pulled on all hosts
model = "nomic-embed-text"
num_thread = 4           # measured in spring
batch_texts = 64

[[indexes]]
name = "notes"   # all of them
table = "note"
key = "id"
text = "body"
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rag-index.toml"
    path.write_text(TEXT)
    path.chmod(0o640)
    return path


def test_values_change_and_everything_else_stays(file):
    write_keys(file, {("embedder", "batch_texts"): 16, ("embedder", "requests_in_flight"): 4})
    expected = TEXT.replace("batch_texts = 64\n", "batch_texts = 16\nrequests_in_flight = 4\n")
    assert file.read_text() == expected
    assert load_settings(file).embedder.requests_in_flight == 4
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [path.name for path in file.parent.iterdir()] == ["rag-index.toml"]


def test_a_key_is_removed_and_a_table_is_added(file):
    write_keys(file, {("embedder", "num_thread"): None, ("parallel", "workers"): 3, ("run", "wait"): None})
    settings = load_settings(file)
    assert (settings.embedder.num_thread, settings.parallel.workers) == (None, 3)
    assert "# all of them" in file.read_text()
    assert file.read_text().endswith('text = "body"\n\n[parallel]\nworkers = 3\n')


@pytest.mark.parametrize(("text", "message"), [(TEXT, "batch_texts"), ("[source\n", "is not TOML")])
def test_a_file_that_would_not_load_is_not_written(file, text, message):
    file.write_text(text)
    with pytest.raises(SettingsError, match=message):
        write_keys(file, {("embedder", "batch_texts"): -1})
    assert file.read_text() == text
    assert [path.name for path in file.parent.iterdir()] == ["rag-index.toml"]


def test_a_symbolic_link_stays_one(file, tmp_path):
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    write_keys(link, {("embedder", "batch_texts"): 16})
    assert link.is_symlink()
    assert load_settings(file).embedder.batch_texts == 16
