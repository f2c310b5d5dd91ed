"""Who sees a run: whoever names a Prefect server in a profile has it there."""

import os

import pytest

from rag_index.orchestration.launch import names_api
from tests.forked_program import without_api


@pytest.mark.parametrize(("active", "named"), [('"a"', True), ('"b"', False), ("not toml", False)])
def test_whoever_names_a_prefect_server_in_a_profile_sees_the_runs_there(tmp_path, monkeypatch, active, named):
    for name in os.environ.keys() - without_api().keys():
        monkeypatch.delenv(name)
    assert not names_api(tmp_path)
    profile = f'active = {active}\n[profiles.a]\nPREFECT_API_URL = "http://127.0.0.1:1/api"\n'
    (tmp_path / "profiles.toml").write_text(profile)
    assert names_api(tmp_path) is named
