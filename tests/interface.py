"""What others rely on by name: everything that a rewrite must not change without anybody's notice.

What HTTP and MCP describe and answer is in tests/search/service/interface.py.

`python -m tests.interface` writes it to tests/interface.json, which `tests/test_interface.py`
compares. A change of that file is a change for users, plug-ins, dashboards or stored data, and
belongs in the changelog.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import yaml
from click.testing import CliRunner

ROOT = Path(__file__).parents[1]
FILE = Path(__file__).parent / "interface.json"


def collect() -> dict[str, Any]:
    """Return everything that others rely on, by kind, with plain and sorted values."""
    return {
        "commands": commands(),
        "settings": settings(),
        "environment": environment_variables(),
        "errors": error_classes(),
        "python": python_names(),
        "plugins": plugin_contracts(),
        "prefect": prefect_names(),
        "loggers": logger_names(),
        "ledger": ledger_columns(),
        **answers_and_stored_names(),
    }


def commands() -> dict[str, list[str]]:
    """Return the arguments and options of each command."""
    from rag_index import cli
    from rag_index.cli import program

    for module in set(cli.COMMANDS.values()):
        __import__(f"rag_index.cli.{module}")
    found = {}
    for name, command in sorted(program.commands.items()):
        found[name] = sorted(_spelling(parameter) for parameter in command.params)
    return found


def _spelling(parameter: click.Parameter) -> str:
    """Return an option as it is typed, `--limit`, or an argument in capitals, `QUERY`."""
    if isinstance(parameter, click.Option):
        return ", ".join(sorted([*parameter.opts, *parameter.secondary_opts]))
    return (parameter.name or "").upper()


def settings() -> dict[str, Any]:
    """Return the JSON schema of the settings file, without the texts for people."""
    from rag_index.care.effective_settings import settings_schema

    return _without_texts(settings_schema())


def _without_texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_texts(inner)
            for key, inner in sorted(value.items())
            if not (key in ("description", "title", "examples") and isinstance(inner, str | list))
        }
    if isinstance(value, list):
        return [_without_texts(inner) for inner in value]
    return value


def environment_variables() -> list[str]:
    """Return the variables that code and pages name."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "rag_index").rglob("*.py")]
    texts += [path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")]
    found = re.findall(r"\bRAG_INDEX_[A-Z_]*[A-Z]\b", "\n".join(texts))
    return sorted(set(found))


def error_classes() -> dict[str, list[Any]]:
    """Return each error with its bases and its exit code."""
    from rag_index import errors

    found = {}
    for name, kind in sorted(vars(errors).items()):
        if (
            inspect.isclass(kind)
            and issubclass(kind, Exception)
            and kind.__module__ == errors.__name__
        ):
            bases = [base.__name__ for base in kind.__bases__]
            found[name] = [*bases, getattr(kind, "exit_code", None)]
    return found


def python_names() -> dict[str, str]:
    """Return what an application imports to search, with the signatures of the retriever."""
    from rag_index import retrieve
    from rag_index.retrieve import Retriever

    found = dict.fromkeys(sorted(retrieve.__all__), "")
    for name, member in sorted(vars(Retriever).items()):
        if not name.startswith("_") and callable(member):
            found[f"Retriever.{name}"] = str(inspect.signature(member))
    return found


def plugin_contracts() -> dict[str, str]:
    """Return the methods of the protocols that packages of others fulfil."""
    from rag_index.components.chunking import Chunker
    from rag_index.components.embedders import Embedder
    from rag_index.components.sources import Source
    from rag_index.core.settings import plugins
    from rag_index.search.rerankers import Reranker

    groups = (
        plugins.SOURCES,
        plugins.EMBEDDERS,
        plugins.RERANKERS,
        plugins.CHUNKERS,
        plugins.FORMATS,
    )
    found = {"groups": " ".join(groups)}
    for protocol in (Source, Embedder, Chunker, Reranker):
        for name, member in sorted(vars(protocol).items()):
            if inspect.isfunction(member) and not name.startswith("_"):
                found[f"{protocol.__name__}.{name}"] = str(inspect.signature(member))
    return found


def prefect_names() -> dict[str, list[str]]:
    """Return the names by which a dashboard, a schedule or an automation knows flows, tasks and
    deployments."""
    from prefect import Flow, Task

    import flows.benchmark
    import flows.doctor
    import flows.index_all
    import flows.index_collection
    import tasks.etl

    modules = (flows.benchmark, flows.doctor, flows.index_all, flows.index_collection, tasks.etl)
    members = [member for module in modules for member in vars(module).values()]
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    return {
        "flows": sorted({member.name for member in members if isinstance(member, Flow)}),
        "tasks": sorted({member.name for member in members if isinstance(member, Task)}),
        "deployments": sorted(f"{one['entrypoint']} {one['name']}" for one in deployments),
    }


def logger_names() -> list[str]:
    """Return the loggers that a configuration of logging may name."""
    found = set()
    for path in (ROOT / "rag_index").rglob("*.py"):
        found |= set(
            re.findall(r'getLogger\("(rag_index[\w.]*)"\)', path.read_text(encoding="utf-8"))
        )
    return sorted(found)


def ledger_columns() -> dict[str, Any]:
    """Return tables and columns of the ledger, with its version and that of indexes."""
    from rag_index.components.ledger.tables import LEDGER_VERSION, metadata
    from rag_index.core.documents import INDEX_VERSION

    tables = {
        name: [f"{c.name} {c.type}" for c in table.columns]
        for name, table in sorted(metadata.tables.items())
    }
    return {"version": LEDGER_VERSION, "index version": INDEX_VERSION, "tables": tables}


def metric_names(settings: Any) -> list[str]:
    """Return the metrics that the service and a retriever report to Prometheus."""
    from rag_index.search import Retriever
    from rag_index.search.service.guard import HttpMetrics

    with Retriever(settings) as retriever:
        families = [*retriever.metrics().collect(), *HttpMetrics().registry.collect()]
    return sorted(family.name for family in families)


def answers_and_stored_names() -> dict[str, Any]:
    """Return the keys of what commands print as JSON, of metrics, and of what an embedded store
    holds."""
    with TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder))
        first = workshop.json("index-all")
        printed = {
            "index-all": first,
            "plan": workshop.json("plan"),
            "search": workshop.json("search", "smelly motor", "--limit", "2", "--explain"),
            "similar": workshop.json("search", "--like", "repair/1", "--limit", "2"),
            "why": workshop.json("search", "screen", "--why", "repair/7"),
            "status": workshop.json("status"),
            "report": workshop.json("status", "--report"),
            "doctor": workshop.json("doctor"),
            "config": workshop.json("config"),
        }
        return {
            "json": {command: _shape(answer) for command, answer in printed.items()},
            "metrics": metric_names(workshop.settings),
            "stored": workshop.stored_names(),
        }


class Workshop:
    """The sample workshop in a folder, as a user has it after `sample workshop --settings`."""

    def __init__(self, parent: Path) -> None:
        folder = parent / "shop"  # the name of the project, and so a part of names in the store
        folder.mkdir()
        self._config = folder / "rag-index.toml"
        self._run("sample", "workshop", "--out", str(folder / "workshop.db"), "--settings")

    @property
    def settings(self) -> Any:
        from rag_index.core.settings import load_settings

        return load_settings(self._config)

    def json(self, *arguments: str) -> Any:
        """Return what a command prints with --json."""
        return json.loads(self._run("--config", str(self._config), *arguments, "--json"))

    def _run(self, *arguments: str) -> str:
        from rag_index.cli import program

        ended = CliRunner().invoke(program, list(arguments))
        assert ended.exit_code == 0, (arguments, ended.output, ended.exception)
        return ended.stdout

    def stored_names(self) -> dict[str, Any]:
        """Return the keys of a point's payload, of a collection's metadata, and of the files beside
        the points."""
        from rag_index.components.stores import open_store
        from rag_index.core.documents.batches import RESERVED_KEY

        loaded = self.settings
        with closing(open_store(loaded.store)) as store:
            (name,) = store.names()
            metadata = store.collections()[name]
            (point, *_) = store.points(name).scroll()
        files = sorted(
            {
                path.name
                for path in loaded.store.path.rglob("*.json")
                if "segments" not in path.parts
            }
        )
        written = {
            name: _shape(json.loads(next(loaded.store.path.rglob(name)).read_text()))
            for name in files
        }
        return {
            "payload": sorted(point.payload[RESERVED_KEY]),
            "reserved key": RESERVED_KEY,
            "metadata": sorted(metadata),
            "files": {
                name: keys
                for name, keys in written.items()
                if name in ("commit.json", "catalog.json")
            },
        }


def _shape(value: Any) -> Any:
    """Return the keys of JSON at all levels, and of lists those of the first element."""
    if isinstance(value, dict):
        return {_anonymous(key): _shape(inner) for key, inner in sorted(value.items())}
    if isinstance(value, list):
        return [_shape(value[0])] if value else []
    return None


def _anonymous(key: str) -> str:
    """Return a key without the number in the name of a collection: `shop_repair__1` is
    `COLLECTION`."""
    return re.sub(r"^\w+__\d+$", "COLLECTION", key)


if __name__ == "__main__":
    FILE.write_text(
        json.dumps(collect(), indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8"
    )
    print(f"wrote {FILE}", file=sys.stderr)
