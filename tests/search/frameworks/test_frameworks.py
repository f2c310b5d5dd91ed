"""Retrievers of other frameworks, in an environment of their own that has the real packages."""

import subprocess
import sys
import sysconfig

import pytest

from tests.docs.pages import ROOT
from tests.docs.test_examples import run_example
from tests.search.desk import Desk

FRAMEWORKS = ["langchain-core", "llama-index-core", "haystack-ai"]


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    environment = tmp_path_factory.mktemp("frameworks") / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    made = environment / "bin" / "python"
    [packages] = environment.glob("lib/*/site-packages")
    # It finds the project and what that needs, after its own packages. Pip then installs only what
    # is lacking, such as langchain-core but not pydantic. Few of the modules are ever imported, so
    # only those are compiled: both together take a fifth of the processor time.
    here = sysconfig.get_path("purelib")
    (packages / "project.pth").write_text(f"{ROOT}\nimport site; site.addsitedir({here!r})\n")
    pip = [sys.executable, "-m", "pip", "--python", made, "install", "--no-compile"]
    quietly = ["--quiet", "--disable-pip-version-check"]
    versions = ["--constraint", ROOT / "constraints.txt"]
    subprocess.run([*pip, *quietly, *versions, *FRAMEWORKS], check=True)
    return made


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    return Desk(tmp_path_factory.mktemp("desk")).fill()


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("framework", ["service", "langchain", "llama_index"])
def test_a_framework_finds_what_the_retriever_finds(python, desk, framework):
    command = [
        python,
        ROOT / "tests" / "search" / "frameworks" / "check_frameworks.py",
        framework,
        desk.settings.path,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("OK"), done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["langchain", "haystack"])
def test_the_example_for_a_framework_writes_a_prompt(python, tmp_path, name):
    run_example(name, tmp_path, python.parent)
