"""Packages of other people: those that are in the way of rag-index's own."""

import sys

import pytest

from rag_index.core.settings.plugins import check_own_packages
from rag_index.errors import SettingsError


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
    with pytest.raises(SettingsError, match=f"of the packages named '{name}' Python finds the one in {tmp_path}"):
        check_own_packages()
