"""Another user of the machine, who tries to read or to run what is not his."""

import os
import subprocess
from pathlib import Path

import pytest

NOBODY = 65534

needs_second_user = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root, who can become another user"
)


def readable_by_others(folder: Path) -> list[str]:
    """Return the files under `folder` that another user can read, as paths from there."""
    ended = subprocess.run(
        ["find", ".", "-type", "f", "-readable"],
        cwd=folder,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )
    return sorted(line.removeprefix("./") for line in ended.stdout.splitlines())
