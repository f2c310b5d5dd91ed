"""A machine of its own: another root folder, other users, no network but loopback, and processes that end with it.

Programs and rag-index come from this machine, read-only. `systemctl` is played by tests/deployments/systemctl.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.deployments.server import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["HOME", "VENV", "Machine", "missing"]

HOME = "/srv/rag-index"
"""Where the repository's files for deployments are on the machine: what a user has checked out."""
VENV = "/opt/rag-index/venv"
PROGRAMS = ("bin", "lib", "lib64", "sbin", "usr")


def missing() -> str:
    """Return why there can be no machine here, or an empty text."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root on Linux may make a machine of its own"
    programs = [name for name in ("unshare", "nsenter", "setpriv", "ip", "useradd") if shutil.which(name) is None]
    if programs:
        return f"there is no {programs[0]}"
    tried = subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"], check=False)
    return "" if tried.returncode == 0 else "namespaces are not allowed here"


class Machine:
    """The machine, until the `with` block ends."""

    def __init__(self, folder: Path) -> None:
        self._root = folder / "root"
        self._root.mkdir(parents=True)

    def __enter__(self) -> Machine:
        script = [f"mount --make-rprivate /\nmount -t tmpfs tmpfs {self._root}\ncd {self._root}", *self._script()]
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "bash", "-ec", "\n".join(script)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert self._holder.stdout is not None
        said = self._holder.stdout.readline()
        assert said == "ready\n", said + self._holder.stdout.read()
        return self

    def __exit__(self, *error: object) -> None:
        self._holder.kill()
        self._holder.wait()

    def run(self, line: str, *, code: int = 0, seconds: float = 240) -> str:
        """Run a command as root in the folder with the repository's files, and return what it prints."""
        (init,) = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text(encoding="ascii").split()
        enter = ["nsenter", "--target", init, "--mount", "--net", "--pid", "chroot", self._root]
        environment = {"PATH": "/run/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
        ended = subprocess.run(
            [*enter, "/bin/bash", "-c", f"cd {HOME} && {line}"],
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip
        assert ended.returncode == code, (line, ended.returncode, ended.stdout, ended.stderr)
        return ended.stdout + ended.stderr

    def _script(self) -> Iterable[str]:
        """Yield the commands that furnish the root folder, which is the current one."""
        yield "mkdir dev proc sys tmp var opt srv root home run run/bin var/tmp var/lib"
        yield "chmod 1777 tmp var/tmp; cp -a /etc etc; mount --rbind /dev dev; mount -t proc proc proc"
        for name in PROGRAMS:
            if Path("/", name).is_symlink():
                yield f"cp -a /{name} {name}"
            elif Path("/", name).exists():
                yield _bind(Path("/", name), name)
        for path in _python():
            yield _bind(path, str(path).lstrip("/"))
        yield _bind(Path(sys.prefix), VENV.lstrip("/"))
        yield f"mkdir -p .{HOME}; cp -r {ROOT}/prefect.yaml {ROOT}/deployments .{HOME}"
        play = f"{sys.executable} {ROOT}/tests/deployments/systemctl.py"
        yield f"printf '#!/bin/sh\\nexec {play} \"$@\"\\n' > run/bin/systemctl; chmod 755 run/bin/systemctl"
        yield "ip link set lo up; echo ready; exec sleep infinity"


def _bind(path: Path, target: str) -> str:
    return f"mkdir -p {target}; mount --bind {path} {target}; mount -o remount,bind,ro {target}"


def _python() -> list[Path]:
    """Return the folders that Python and rag-index need, none within another."""
    folders = {Path(sys.base_prefix), Path(sys.prefix), ROOT, *(Path(name) for name in sys.path if Path(name).is_dir())}
    needed = {folder.resolve() for folder in folders if not folder.is_relative_to("/usr")}
    return sorted(one for one in needed if not any(one != other and one.is_relative_to(other) for other in needed))
