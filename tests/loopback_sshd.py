"""An sshd on a loopback port with keys of its own: the device of the tests."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
MISSING = [
    name
    for name, found in (("sshd", SSHD), *((name, shutil.which(name)) for name in ("ssh", "gcc")))
    if found is None
]


@dataclass(frozen=True)
class Loopback:
    """`folder` holds an `ssh` with a configuration for the hosts pi, changed, unknown, stranger
    and dead; `environment` is a file of sh that every command on the device begins with."""

    folder: Path
    environment: Path
    tmp: Path
    daemon: subprocess.Popen[bytes]

    def processes(self) -> list[int]:
        """Processes of the sessions: every descendant of the daemon."""
        parents: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                    parents.setdefault(int(parent), []).append(int(entry.name))
        found, todo = [], [self.daemon.pid]
        while todo:
            children = parents.get(todo.pop(), [])
            found += children
            todo += children
        return found

    def calls(self) -> list[list[str]]:
        """The words of every call of ssh."""
        path = self.folder / "calls"
        return [line.split("\x1f") for line in path.read_text().split("\x1e") if line]


def _key(path: Path) -> str:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True
    )
    return Path(f"{path}.pub").read_text().strip()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Loopback]:
    """Start sshd; raises RuntimeError with its last words where it does not let us in."""
    assert SSHD is not None
    folder.chmod(0o755)
    host_key, other_key = _key(folder / "host"), _key(folder / "other")
    (folder / "authorized").write_text(_key(folder / "user") + "\n")
    _key(folder / "stranger")
    port, closed = _free_port(), _free_port()
    tmp = folder / "tmp"
    tmp.mkdir()
    environment = folder / "environment"
    environment.write_text("")
    _write_program(
        folder / "enter",
        f"#!/bin/sh\nTMPDIR={tmp}\nexport TMPDIR\n. {environment}\n"
        'exec sh -c "$SSH_ORIGINAL_COMMAND"\n',
    )
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized\nUsePAM no\nStrictModes no\n"
        f"PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"PermitRootLogin prohibit-password\nForceCommand {folder}/enter\n"
    )
    (folder / "known_hosts").write_text(
        f"pi {host_key}\nchanged {other_key}\nstranger {host_key}\n"
    )
    common = (
        f"HostName 127.0.0.1\nUser {pwd.getpwuid(os.getuid()).pw_name}\nIdentitiesOnly yes\n"
        f"UserKnownHostsFile {folder}/known_hosts\nGlobalKnownHostsFile /dev/null\n"
    )
    hosts = [
        f"Host {name}\nHostKeyAlias {name}\nPort {closed if name == 'dead' else port}\n"
        f"IdentityFile {folder}/{'stranger' if name == 'stranger' else 'user'}\n"
        for name in ("pi", "changed", "unknown", "stranger", "dead")
    ]
    (folder / "ssh_config").write_text("".join(hosts) + f"Host *\n{common}")
    # OpenSSH finds the user's configuration by the password file and not by HOME.
    _write_program(
        folder / "ssh",
        f'#!/bin/sh\n{{ printf "%s\\037" "$@"; printf "\\036"; }} >> {folder}/calls\n'
        f'exec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n',
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    log = folder / "log"
    with log.open("wb") as out:
        daemon = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", folder / "sshd_config"], stdin=subprocess.DEVNULL, stderr=out
        )
    loopback = Loopback(folder, environment, tmp, daemon)
    said = ""
    try:
        for _ in range(20):
            if daemon.poll() is not None:
                break
            done = subprocess.run(
                [folder / "ssh", "-o", "BatchMode=yes", "pi", "true"],
                capture_output=True, text=True, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            if done.returncode == 0:
                (folder / "calls").unlink()
                yield loopback
                return
            said = done.stderr
            time.sleep(0.1)
        raise RuntimeError(" / ".join((log.read_text() + said).splitlines()[-3:]))
    finally:
        daemon.terminate()
        daemon.wait()
