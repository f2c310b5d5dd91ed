"""The errors: each survives pickle, and those that wrong settings cause have an exit code of their own."""

import importlib
import inspect
import pickle
import pkgutil

import pytest

import rag_index
from rag_index import errors
from rag_index.errors import RagIndexError, SettingsError, SettingsReplaced, SourceError, UnknownIndex


def subclasses(kind: type[RagIndexError]) -> set[type[RagIndexError]]:
    """Return the class and all its subclasses, wherever in the project they are defined."""
    return {kind}.union(*map(subclasses, kind.__subclasses__()))


@pytest.fixture(scope="module")
def kinds() -> list[type[RagIndexError]]:
    """The classes of all modules, which are imported only where this runs."""
    for module in pkgutil.walk_packages(rag_index.__path__, "rag_index."):
        if not module.name.startswith("rag_index.search.frameworks."):  # the frameworks are not installed
            importlib.import_module(module.name)
    return sorted((c for c in subclasses(RagIndexError) if "tests" not in c.__module__), key=lambda kind: kind.__name__)


def test_all_are_defined_in_one_place(kinds):
    assert {kind.__module__ for kind in kinds} == {errors.__name__}


def test_each_survives_pickle(kinds):
    """Arguments, attributes and message are the same in the process that receives the error."""
    given = {
        "retry_after": 3.5, "point_ids": ("a", "b"), "errors": {"notes": "why"}, "exit_code": 3, "timed_out": True,
        "as_of": {"notes": {"position": "4711"}},
    }  # fmt: skip
    for kind in kinds:
        names = inspect.getfullargspec(kind.__init__).args if inspect.isfunction(kind.__init__) else []
        extra = [given[name] for name in names[2:]]
        for arguments in (["what is wrong"], ["what is wrong", *extra]):
            error = kind(*arguments)
            copy = pickle.loads(pickle.dumps(error))
            assert type(copy) is kind
            expected = (error.args, "what is wrong", vars(error), error.exit_code)
            assert (copy.args, str(copy), vars(copy), copy.exit_code) == expected


def test_exit_codes_are_those_of_the_command_line(kinds):
    wrong_settings = {SettingsError, SettingsReplaced, UnknownIndex, SourceError}
    assert {kind for kind in kinds if kind.exit_code == 2} == wrong_settings
    assert {kind.exit_code for kind in set(kinds) - wrong_settings} == {1}
