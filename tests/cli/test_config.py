"""`rag-index config`: the effective settings, where they come from, and why."""

import pytest

from rag_index.care import effective_settings
from rag_index.core.machine.resources import Machine
from rag_index.core.settings import SECTIONS, IndexSettings
from rag_index.core.settings.parts import keys_of, tables_of
from tests.project import Project

SECRET = "hunter2-correct-horse"


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path / "project", extra="[parallel]\nshard_documents = 3").fill(20)


def test_each_value_names_its_origin(project):
    answer = project.json("config", RAG_INDEX_RUN__DELETE_GUARD="0.5", RAG_INDEX_RUN__WAIT_FOR_RECOVERY="2")
    found = {value["key"]: value for value in answer["settings"]}
    assert answer["file"] == str(project.config)
    for key, value, source in (
        ("parallel.shard_documents", 3, "rag-index.toml"),
        ("run.delete_guard", 0.5, "RAG_INDEX_RUN__DELETE_GUARD"),
        ("run.wait_for_recovery", 2, "RAG_INDEX_RUN__WAIT_FOR_RECOVERY"),
        ("embedder.kind", "local", "default"),
    ):
        assert (found[key]["value"], found[key]["source"]) == (value, source)
    assert found["indexes.notes.text"]["value"] == ["title", "body"]


def test_every_key_of_every_table_is_listed(project):
    keys = {value.key for value in effective_settings.effective_settings(project.settings)}
    assert {key.split(".")[0] for key in keys} == {"project", "data", "indexes", *SECTIONS}
    for section, model in SECTIONS.items():
        tables = tables_of(model)
        assert {f"{section}.{name}" for name in keys_of(model).keys() - tables.keys()} <= keys
        assert {f"{section}.{table}.{name}" for table, inner in tables.items() for name in inner.model_fields} <= keys
    assert {f"indexes.notes.{field.alias or name}" for name, field in IndexSettings.model_fields.items()} <= keys


def test_secrets_are_masked(project):
    url = f"postgresql+psycopg://reader:{SECRET}@db.example:5432/desk?sslpassword={SECRET}"
    for arguments in (["config"], ["config", "--json"]):
        ended = project.cli(*arguments, RAG_INDEX_LEDGER__URL=url, RAG_INDEX_STORE__API_KEY=SECRET)
        assert ended.returncode == 0, ended.stderr
        assert SECRET not in ended.stdout + ended.stderr
        assert "reader:***@db.example:5432/desk" in ended.stdout


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        (Machine(8, 2.0, 10**12), "1: 2 processors less one"),
        (Machine(8, None, 1_500_000_000), "2: 8 processors less one for the flow, but at least one, if memory"),
        (Machine(8, None, 900_000_000), "0: memory has no room for a worker of 300 MB beside the flow"),
    ],
)
def test_the_reason_for_the_number_of_workers(project, machine, reason, monkeypatch):
    monkeypatch.setattr(effective_settings, "detect_machine", lambda: machine)
    values = {value.key: value for value in effective_settings.effective_settings(project.settings)}
    assert values["parallel.workers"].why.startswith(reason)
