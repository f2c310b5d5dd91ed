"""What files import: a night knows no search, a search no night, neither opens what it does not need, and no circle."""

import json
import os
import subprocess
import sys
from graphlib import TopologicalSorter

import grimp
import pytest

from tests.project import Project

IMPORTED_AT_THE_END = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
"""
COMMAND = "from rag_index.cli import main; main()"
FLOW = "import runpy; sys.argv = ['flows.index_all']; runpy.run_module('flows.index_all', run_name='__main__')"


@pytest.mark.long
@pytest.mark.parametrize("program", [COMMAND, pytest.param(FLOW, marks=pytest.mark.long)])
def test_a_night_loads_nothing_of_search_or_watch(tmp_path, program):
    """Unless an index has a gate, or is to learn what its scores mean."""
    project = Project(tmp_path / "project").fill(3)
    given = os.environ | {"RAG_INDEX_CONFIG": str(project.config), "PREFECT_LOGGING_TO_API_ENABLED": "0"}
    command = [sys.executable, "-c", IMPORTED_AT_THE_END + program, "index-all"]
    ended = subprocess.run(command, env=given, capture_output=True, text=True, check=True)
    [modules] = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith('["')]
    assert "rag_index.etl.run" in modules
    assert not [name for name in modules if name.startswith(("rag_index.search", "rag_index.watch", "rag_index.first"))]


@pytest.mark.long
def test_a_worker_imports_what_embeds_and_writes_and_no_more():
    program = [sys.executable, "-c", "import json, sys, tasks.etl; print(json.dumps(sorted(sys.modules)))"]
    modules = json.loads(subprocess.run(program, capture_output=True, text=True, check=True).stdout)
    came_along = {name.split(".")[1] for name in modules if name.startswith("rag_index.")}
    assert came_along == {"errors", "redaction", "core", "components", "etl"}
    assert "qdrant_client" not in modules, "the store may be embedded"


def test_no_files_import_each_other_in_a_circle():
    """Imports for types count. The error names the circle."""
    graph = grimp.build_graph("rag_index", "flows", "tasks", cache_dir=None)
    TopologicalSorter({file: graph.find_modules_directly_imported_by(file) for file in graph.modules}).prepare()
