"""The way to a device: the system's ssh with the user's own settings, or a shell right here."""

import re
import shutil
import sys
from collections.abc import Iterable
from importlib.resources import files

from mpsearch.errors import InputError, MpsearchError
from mpsearch.running.streams import shown

LOCAL = "local"
# A user, a name or address, a port: nothing that ssh, a shell or a ProxyCommand could act on.
_HOST = re.compile(r"(ssh://)?([A-Za-z0-9_][A-Za-z0-9_.+-]*@)?[A-Za-z0-9_\[][A-Za-z0-9_.:%\[\]-]*")
# ssh runs a command without logging in: ~/.profile is not read, ~/.bashrc and ~/.zshenv are.
ELSEWHERE = (
    "Name another folder of the device with --device-folder, or as TMPDIR in what its shell reads "
    "at every start (the top of ~/.bashrc, ~/.zshenv)."
)
_INSTALL_SSH = "install it, for example with: sudo apt install openssh-client"


class DeviceError(MpsearchError):
    """The device or the way to it failed, or the program on it did (exit code 2)."""


def script() -> bytes:
    """The fixed text that runs on the device."""
    return (files("mpsearch.device") / "device.sh").read_bytes()


def check_host(host: str) -> None:
    """Raise InputError for what is no `local`, `pi@raspberrypi` or `ssh://pi@10.0.0.7:2222`."""
    if not _HOST.fullmatch(host):
        raise InputError(
            f"got the host {ascii(host)[:80]}; expected local, NAME, USER@NAME or "
            "ssh://USER@NAME:PORT without spaces or signs"
        )


def command_for(host: str) -> list[str]:
    """The process that gives a shell on `host` which reads our script and then commands.

    A login shell of any kind gets this one line: the script follows on the standard input, and dd
    takes exactly its bytes from there. Keys, ports, jumps and the checks of host keys are those of
    the user's ssh_config. Raises DeviceError where ssh is missing.
    """
    read = f'eval "$(dd bs=1 count={len(script())} 2>/dev/null)"'
    if host == LOCAL:
        return ["sh", "-c", read]
    return [*_ssh(host), f"exec sh -c '{read}'"]


def check_folder(folder: str) -> None:
    """Raise InputError for what is no absolute path in one line of printable text."""
    if folder and not (folder.startswith("/") and folder.isprintable() and len(folder) < 1000):
        raise InputError(
            f"--device-folder: got {folder!a:.80}; expected an absolute path such as /var/tmp"
        )


def shell_of(host: str) -> tuple[str, ...]:
    """The words that start another `sh` on `host`, which reads a script from its standard input.

    It asks nothing: meters run in the background. What is added to them goes through the login
    shell of a remote host, so it must be quoted.
    """
    return ("sh",) if host == LOCAL else (*_ssh(host, asks=False), "sh")


def _ssh(host: str, asks: bool = True) -> list[str]:
    if shutil.which("ssh") is None:
        raise DeviceError(f"there is no ssh on this machine; {_INSTALL_SSH}")
    # Nobody can answer a question where there is no terminal: fail instead of waiting.
    batch = [] if asks and sys.stdin.isatty() else ["-o", "BatchMode=yes"]
    return ["ssh", "-T", "-a", "-x", *batch, "--", host]


def explain(host: str, said: str) -> tuple[str, ...]:
    """Why there was no connection, from what ssh printed: one or two lines."""
    lines = [clean(line) for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else "it printed nothing"
    if "HOST IDENTIFICATION HAS CHANGED" in said:
        return (
            f"the host key of {host} is not the one that this machine knows: another device "
            "answers, or it was installed anew. Nothing was sent.",
            "Compare the fingerprint on the device before you remove the old key from known_hosts.",
        )
    if "Host key verification failed" in said:
        return (
            f"the host key of {host} is not known here. Nothing was sent.",
            f"Connect once with `ssh {host}` and compare the fingerprint that it shows.",
        )
    if "Permission denied" in said:
        return (
            f"{host} refused the login: {last}",
            f"Make `ssh {host}` work first, for example with `ssh-copy-id {host}`.",
        )
    return f"cannot reach {host}: {last}", f"Make `ssh {host}` work first; is the device on?"


def telling(lines: Iterable[str]) -> str | None:
    """The line to show of what a program said: the first that speaks of an error, or the last."""
    shown = [clean(line) for line in lines if line.strip()]
    wrong = (line for line in shown if re.search(r"\berror\b", line))
    return next(wrong, shown[-1] if shown else None)


def clean(text: str) -> str:
    """Text of another machine for one line of ours: no control characters, not long."""
    return shown(text.strip(), 300)
