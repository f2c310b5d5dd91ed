"""`make test` on a machine without Ollama: nothing is built, and the end says what was not
tried."""

import os
import subprocess
import sys

import pytest

from tests.docs.pages import ROOT

TESTS = "tests/live/test_ollama.py"
TEST = f"{TESTS}::test_a_model_process_that_dies_during_a_request_loses_no_text"
SAID = (
    "NOT TESTED HERE: there is no real Ollama: none is on the PATH, and .ci/build-ollama has built"
    " none"
)


@pytest.mark.long
@pytest.mark.parametrize("ci", [False, True])
def test_the_end_says_what_was_not_tried_without_ollama_and_nothing_is_built(tmp_path, ci):
    """With Go on the PATH. In CI, where .ci/run builds it, a skipped test fails."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("go", "gcc", "g++"):
        (programs / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/built\nexit 1\n")
        (programs / name).chmod(0o755)
    home = {
        "HOME": str(tmp_path / "home"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "CI": "true" if ci else "",
    }
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "1", "-p", "no:cacheprovider", TEST],
        cwd=ROOT,
        env={**os.environ, **home, "PATH": f"{programs}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == int(ci), ended.stdout + ended.stderr
    assert not (tmp_path / "built").exists()
    if ci:
        assert "skipped, which is a failure in CI" in ended.stdout
    else:
        summary, count = ended.stdout.rstrip().splitlines()[-2:]
        assert summary.startswith(SAID)
        assert summary.endswith(f"(1 of {TESTS})")
        assert "1 skipped" in count
