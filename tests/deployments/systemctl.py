"""Play systemd: `systemctl enable --now UNIT` starts a unit with its user, environment and restrictions.

A directive that is not known here is an error, so that no restriction of a unit is left out in silence.
"""

import os
import pwd
import re
import shlex
import subprocess
import sys
from pathlib import Path

UNITS = Path("/etc/systemd/system")
KNOWN = {
    "User", "StateDirectory", "StateDirectoryMode", "WorkingDirectory", "Environment", "EnvironmentFile", "ExecStart",
    "ExecStartPost", "NoNewPrivileges", "ProtectSystem", "PrivateTmp",
}  # fmt: skip
IGNORED = {"KillMode", "TimeoutStartSec", "TimeoutStopSec", "Restart", "RestartSec"}
"""What matters only when a service ends."""
SYSTEM = ("/dev", "/proc", "/sys")


def main(command: str, *arguments: str) -> None:
    if command == "daemon-reload":
        return
    if command != "enable" or arguments[0] != "--now":
        raise SystemExit(f"systemctl {command} is not played")
    for unit in arguments[1:]:
        start(directives(UNITS / f"{unit}.service"), Path(f"/var/log/{unit}.log"))


def directives(file: Path) -> dict[str, list[str]]:
    """Return the directives of [Service]."""
    section = file.read_text(encoding="utf-8").split("[Service]\n")[1].split("\n[")[0]
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", section, re.MULTILINE):
        found.setdefault(name, []).append(value)
    unknown = found.keys() - KNOWN - IGNORED
    assert not unknown, f"{file.name}: {unknown} is not played"
    assert found["NoNewPrivileges"] == found["PrivateTmp"] == ["true"]
    assert found["ProtectSystem"] == ["strict"]
    return found


def start(unit: dict[str, list[str]], log: Path) -> None:
    """Start the service, and wait for its ExecStartPost."""
    user = pwd.getpwnam(unit["User"][0])
    state = Path("/var/lib", unit["StateDirectory"][0])
    state.mkdir(exist_ok=True)
    state.chmod(int(unit["StateDirectoryMode"][0], 8))
    os.chown(state, user.pw_uid, user.pw_gid)
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": user.pw_dir, "USER": user.pw_name}
    environment |= dict(one.split("=", 1) for one in unit["Environment"])
    for file in unit.get("EnvironmentFile", []):
        if Path(file.removeprefix("-")).exists():
            lines = Path(file.removeprefix("-")).read_text(encoding="utf-8").splitlines()
            environment |= dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    drop = f"setpriv --reuid {user.pw_uid} --regid {user.pw_gid} --init-groups --no-new-privs"
    log.parent.mkdir(exist_ok=True)

    def run(line: str) -> subprocess.Popen[bytes]:
        script = f"{restrictions(state)}\ncd {unit['WorkingDirectory'][0]}\nexec {drop} {line}"
        command = ["unshare", "--mount", "--propagation", "private", "/bin/bash", "-ec", script]
        with log.open("ab") as output:
            return subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    run(unit["ExecStart"][0])
    for line in unit.get("ExecStartPost", []):
        assert run(line).wait() == 0, f"{shlex.quote(line)}: {log.read_text(encoding='utf-8')}"


def restrictions(state: Path) -> str:
    """Return the commands for a private /tmp, and for a system that is read-only but for the state folder."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    below_tmp = [mount for mount in mounts if mount.startswith("/tmp/")]
    lines = ["mkdir -p /run/old-tmp", "mount --rbind /tmp /run/old-tmp", "mount -t tmpfs -o mode=1777 tmpfs /tmp"]
    lines += [f"mkdir -p {one}\nmount --bind /run/old-tmp/{one.removeprefix('/tmp/')} {one}" for one in below_tmp]
    lines.append(f"mount --bind {state} {state}")
    writable = ("/tmp", str(state), *SYSTEM)
    readonly = [one for one in mounts if not one.startswith(SYSTEM)]
    lines += [f"mount -o remount,bind,ro {one}" for one in readonly if one not in writable]
    return "\n".join(lines)


if __name__ == "__main__":
    main(*sys.argv[1:])
