"""A program on a device that was compiled and gives the reference's integers: ready to be timed."""

from dataclasses import dataclass
from itertools import zip_longest

from mpsearch.device.compiling import Compiler, build, cross_compiler, is_native
from mpsearch.device.conditions import read_machine
from mpsearch.device.exported import Exported
from mpsearch.device.profile import Machine, is_virtual
from mpsearch.device.session import Session
from mpsearch.device.timing import Settings, run_program
from mpsearch.device.transport import DeviceError
from mpsearch.errors import MpsearchError


class ReferenceMismatch(MpsearchError):
    """The program on the device gives other integers than the reference (exit code 1)."""

    exit_code = 1


@dataclass(frozen=True)
class Prepared:
    """What is known before anything is timed; `emulated` and `notes` as in DeviceProfile."""

    machine: Machine
    compiler: str
    program_bytes: int
    emulated: bool
    notes: tuple[str, ...] = ()


def prepare(session: Session, exported: Exported, settings: Settings) -> Prepared:
    """Send, compile and compare with the reference.

    Raises ReferenceMismatch when a sample gives other integers; DeviceError when the device or the
    program on it fails; InputError when the export does not compile on this machine.
    """
    prepared = install(session, exported, settings)
    _check(session, exported, settings)
    return prepared


def install(session: Session, exported: Exported, settings: Settings) -> Prepared:
    """Send and compile, without a comparison; errors as for `prepare`."""
    prefix = settings.launch_prefix
    machine = read_machine(session.ask("describe", doing="describing the device").facts)
    built = build(exported, settings.compiler, prefix)
    reply = session.unpack(built.files, built.programs)
    if reply.exit != 0:
        raise session.failed("cannot unpack the files", reply)
    compiler = built.compiler or _compile(session, settings.compiler, machine.architecture)
    reply = session.ask("program", doing="looking at the program")
    if reply.exit != 0:
        raise DeviceError(
            f"the program is not for {session.host}, a {machine.architecture}; use "
            f"{cross_compiler(machine.architecture)}, or an emulator with --launch-prefix"
        )
    native = is_native(_bytes(reply.facts.get("header", "")), machine.architecture)
    size = int(_digits(reply.facts.get("program_bytes", "")))
    virtual = is_virtual(machine)
    emulated = bool(settings.emulated or prefix or not native or virtual)
    note = f"the device calls itself {machine.cpu_model}: it is emulated or virtual"
    return Prepared(machine, compiler, size, emulated, (note,) if virtual else ())


def _compile(session: Session, compiler: Compiler, architecture: str) -> str:
    """Compile on the device; the compiler's name."""
    reply = session.ask("compile", seconds=600, doing="compiling")
    if reply.exit == 127 and not reply.texts:
        raise DeviceError(
            f"{session.host} has no compiler {compiler.words[0]}; install one there (sudo apt "
            "install gcc)",
            f"or compile on this machine: {cross_compiler(architecture)}",
        )
    if reply.exit != 0:
        raise session.failed("cannot compile the export", reply)
    return reply.facts.get("compiler", "unknown")


def _check(session: Session, exported: Exported, settings: Settings) -> None:
    """Every sample must give the reference's integers."""
    arguments = ("--input", "check.f32", "--integers")
    run_program(session, settings, "comparing with the reference", *arguments, output="output")
    got = session.ask("results", doing="reading the results", lines=len(exported.expected)).outputs
    pairs = enumerate(zip_longest(exported.expected, got))
    wrong = [place for place, (meant, given) in pairs if meant != given]
    if wrong:
        raise ReferenceMismatch(
            f"{len(wrong)} of {len(exported.expected)} samples give other integers on "
            f"{session.host} than the reference (first: sample {wrong[0]}); nothing was timed.",
            "Is the compiler or a flag at fault? Try --flags -O1, then report it.",
        )


def _digits(text: str) -> str:
    return text.strip() if text.strip().isdecimal() and len(text) < 20 else "0"


def _bytes(text: str) -> bytes:
    """`127 69 76 70` -> b"\x7fELF"."""
    return bytes(int(_digits(word)) & 255 for word in text.split())
