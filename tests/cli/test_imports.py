"""What the quick commands import: most of their time is imports, so a new one here is a decision, not an accident."""

import json
import os
import re
import subprocess
import sys

import httpx
import pytest

from tests.project import Project

LISTED = """
import atexit, json, sys
before = set(sys.modules)
atexit.register(lambda: print(json.dumps(sorted(set(sys.modules) - before)), file=sys.stderr))
from rag_index.cli import main
main()
"""
WITHOUT = """
import sys
gone = set(sys.argv.pop(1).split(","))
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in gone:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Gone())
from rag_index.cli import main
main()
"""
TERMINATED = """
import os, signal, sys
at = sys.argv.pop(1)
class Terminates:
    def find_spec(self, name, path=None, target=None):
        if name == at:
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Terminates())
from rag_index.cli import main
main()
"""
UNNEEDED = "prefect,prefect_dask,dask,distributed,qdrant_client,grpc,ollama"


def imported(project: Project, *arguments: str) -> set[str]:
    """Return the modules that a command imports."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    ended = subprocess.run(
        [sys.executable, "-c", LISTED, "--config", str(project.config), *arguments],
        capture_output=True, text=True, timeout=120, env=clean, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return set(json.loads(ended.stderr.splitlines()[-1]))


def packages(modules: set[str]) -> set[str]:
    """Return the packages of modules that are neither Python's nor ours."""
    found = {module.split(".")[0] for module in modules if not module.startswith("_")}
    return found - sys.stdlib_module_names - {"rag_index", "cython_runtime"}


@pytest.fixture(scope="module")
def indexed(tmp_path_factory) -> Project:
    project = Project(tmp_path_factory.mktemp("imports") / "project").fill(5)
    imported(project, "index-all")
    return project


@pytest.mark.long
@pytest.mark.parametrize("command", ["try source.db", "init source.db --force", "plan", "index-all"])
def test_a_line_is_said_before_anything_that_takes_long_is_imported(indexed, command):
    program = [sys.executable, "-c", TERMINATED, "pydantic", "--config", str(indexed.config), *command.split()]
    ended = subprocess.run(program, capture_output=True, text=True, check=False, cwd=indexed.folder)
    assert re.match(r"(?:Reading|Opening) .* …\n", ended.stderr), ended.stderr


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_help_and_version_import_nothing_but_click(indexed, option):
    assert packages(imported(indexed, option)) == {"click"}


@pytest.mark.long
def test_an_embedded_index_and_its_service_need_neither_prefect_and_dask_nor_the_clients_of_servers(tmp_path):
    project = Project(tmp_path / "project").fill(5)
    program = [sys.executable, "-c", WITHOUT, UNNEEDED, "--config", str(project.config)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    for arguments in (["index-all"], ["plan"], ["search", "the printer"]):
        ended = subprocess.run([*program, *arguments], capture_output=True, text=True, check=False, env=environment)
        assert ended.returncode == 0, (arguments, ended.stdout + ended.stderr)
    with subprocess.Popen(
        [*program, "serve", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as serving:
        try:
            said = serving.stdout.readline()
            url = re.search(r"http://[\d.:]+", said)
            assert url, said + serving.stdout.read()
            assert httpx.post(f"{url[0]}/search", json={"query": "the printer"}, timeout=60).json()["hits"]
        finally:
            serving.terminate()
