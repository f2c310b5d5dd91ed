"""The errors: each survives pickle and has its exit code, and the command that installs an extra
works everywhere."""

import importlib
import inspect
import json
import pickle
import pkgutil
from importlib import metadata
from types import SimpleNamespace
from urllib.parse import quote

import pytest

import rag_index
from rag_index import errors
from rag_index.errors import (
    InvalidText,
    RagIndexError,
    SettingsError,
    SettingsReplaced,
    SourceError,
    UnknownIndex,
    install_command,
)


def subclasses(kind: type[RagIndexError]) -> set[type[RagIndexError]]:
    """Return the class and all its subclasses, wherever in the project they are defined."""
    return {kind}.union(*map(subclasses, kind.__subclasses__()))


@pytest.fixture(scope="module")
def kinds():
    """The classes of all modules, which are imported only where this runs."""
    for module in pkgutil.walk_packages(rag_index.__path__, "rag_index."):
        if not module.name.startswith(
            "rag_index.search.frameworks."
        ):  # the frameworks are not installed
            importlib.import_module(module.name)
    return sorted(
        (c for c in subclasses(RagIndexError) if "tests" not in c.__module__),
        key=lambda kind: kind.__name__,
    )


def test_all_are_defined_in_one_place_and_each_survives_pickle(kinds):
    """Arguments, attributes and message are the same in the process that receives the error."""
    assert {kind.__module__ for kind in kinds} == {errors.__name__}
    given = {
        "retry_after": 3.5,
        "point_ids": ("a", "b"),
        "errors": {"notes": "why"},
        "exit_code": 3,
        "timed_out": True,
        "as_of": {"notes": {"position": "4711"}},
    }
    for kind in kinds:
        names = (
            inspect.getfullargspec(kind.__init__).args if inspect.isfunction(kind.__init__) else []
        )
        for more in ([], [given[name] for name in names[2:]]):
            error = kind("what is wrong", *more)
            copy = pickle.loads(pickle.dumps(error))
            assert type(copy) is kind
            expected = (error.args, "what is wrong", vars(error), error.exit_code)
            assert (copy.args, str(copy), vars(copy), copy.exit_code) == expected


def test_exit_codes_are_those_of_the_command_line(kinds):
    wrong_settings = {SettingsError, SettingsReplaced, UnknownIndex, SourceError, InvalidText}
    assert {kind for kind in kinds if kind.exit_code == 2} == wrong_settings
    assert {kind.exit_code for kind in set(kinds) - wrong_settings} == {1}


def test_the_command_that_installs_an_extra_names_the_place_that_pip_noted(tmp_path, monkeypatch):
    """Where the package is not installed, nothing is noted (""); a registry notes None."""
    (place := tmp_path / "rag index").mkdir()
    url, checkout = f"file://{quote(str(place))}", "pip install '.[mcp]' in a checkout of rag-index"
    given = {}

    def distribution(name):
        if given["noted"] == "":
            raise metadata.PackageNotFoundError(name)
        text = None if given["noted"] is None else json.dumps(given["noted"])
        return SimpleNamespace(read_text=lambda name: text if name == "direct_url.json" else None)

    with monkeypatch.context() as patch:
        patch.setattr("rag_index.errors.distribution", distribution)
        for given["noted"], command in (
            ({"url": url, "dir_info": {"editable": True}}, f"pip install -e '{place}[mcp]'"),
            ({"url": url, "dir_info": {}}, f"pip install '{place}[mcp]'"),
            ({"url": f"{url}/gone.whl", "archive_info": {}}, checkout),
            ("", checkout),
            (None, "pip install 'rag-index[mcp]'"),
        ):
            install_command.cache_clear()
            assert install_command("mcp") == command
    install_command.cache_clear()
    assert metadata.metadata("rag-index").get_all("Provides-Extra")
    assert "[mcp]" in install_command("mcp"), "as this installation has it"
