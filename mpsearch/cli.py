"""`mpsearch`: the command line. Commands are imported when they are called."""

import contextlib
import errno
import os
import re
import signal
import sys
from importlib import import_module
from typing import Any

import click

from mpsearch import __version__
from mpsearch.commands.console import echo, print_json
from mpsearch.commands.suggesting import Commands, suggesting
from mpsearch.errors import InputError, MpsearchError, did_you_mean, lacks_memory
from mpsearch.running import streams

# name -> what it does; the command lives in mpsearch/commands/<name>.py under the same name.
# The texts stand here and not in the commands, so that `mpsearch --help` imports none of them.
COMMANDS = {
    "run": "The whole loop in one call: model + limits -> measured bits, report, export.",
    "profile": "Measure how sensitive each layer is: model + data -> profile.csv.",
    "solve": "Choose every layer's bits under a budget: profile.csv -> assignment.json.",
    "explain": "Why this bit? Prices of the limits, alternatives of each layer, what-if.",
    "front": "The whole exact Pareto front of a table: CSV, JSON and a picture.",
    "recipe": "Write an assignment as the configuration file of another tool.",
    "allocate": "Another tool's table -> proven bits -> a tool's own configuration file.",
    "apply": "Quantize a network as an assignment says and calibrate it.",
    "finetune": "Train a quantized network further: assignment + data -> quantized.pt.",
    "evaluate": "Measure accuracy and loss, with a 95 % interval, beside FP32.",
    "check": "What each export will make of a network, before time is spent on it.",
    "export": "Write a quantized network as C99 that computes with integers only, or as ONNX.",
    "device": "Measure an export on a Raspberry Pi or another device, over ssh.",
    "predict": "Loss and accuracy of assignments from stored interactions, in no time.",
    "report": "One self-contained page about a run, or several runs compared.",
    "gate": "Exit code 0 or 1: is the network small and accurate enough?",
    "diff": "What changed from one network to another: layers, bits, size, accuracy.",
    "data": "Make datasets from own sounds, pictures and videos; check them for leaks.",
    "train": "Train a bundled network on a named or own dataset.",
    "reproduce": "Repeat TinyM²Net's accuracy table: train, search, fine-tune, measure.",
    "convert": "Turn a model file into an mpsearch file, which executes nothing.",
    "demo": "The whole loop on a bundled network, with measured accuracies.",
    "models": "List the bundled networks and datasets; write TinyM²Net as a Keras file.",
    "doctor": "What works here: packages, solvers, compilers; how to get the rest.",
    "table": "Read a table of another tool, show it, write it as profile.csv.",
    "tables": "List the tables of other tools that are read, and how.",
    "metrics": "List the metrics of sensitivity and of evaluations, plug-ins included.",
    "solvers": "List the installed solvers and what each can do.",
    "recipes": "List the tools that recipes are written for, and the choices they take.",
}

# Words in the metavar, or the name, of a parameter that is a path: shells complete it as one.
PATHS = re.compile(r"FILE|MODEL|QUANTIZED|FOLDER|RUN\b|EXPORT|JSON|CSV|^D$|^assignments?$|^folder$")

INTERNAL_ERROR = 3
INTERRUPTED = 130


class _Commands(Commands):
    """The group that knows every command's name and imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = getattr(import_module(f"mpsearch.commands.{name}"), name)
        assert isinstance(command, click.Command)
        _complete_paths(command)
        return suggesting(command)

    def invoke(self, ctx: click.Context) -> Any:
        """As always; but of an interrupt click makes an empty line before we say so in one."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.Abort from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _complete_paths(command: click.Command) -> None:
    for parameter in command.params:
        name = parameter.metavar or parameter.name or ""
        if parameter.type is click.STRING and PATHS.search(name):
            parameter.type = click.Path()


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--version", is_flag=True, help="Show the version; with --json all that matter.")
@click.option("--json", "as_json", is_flag=True, help="With --version: JSON for a bug report.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, version: bool, as_json: bool, debug: bool) -> None:
    """Find, prove, apply, measure and guard mixed-precision quantization.

    \b
    Example:
      mpsearch run model.pt --size 145KB
    """
    if version:
        _print_version(as_json)
        ctx.exit()
    if as_json:
        raise click.UsageError("--json stands after the command, or beside --version")
    if ctx.invoked_subcommand is None:
        echo(*ctx.get_help().split("\n"))
        ctx.exit(2)


def _print_version(as_json: bool) -> None:
    if not as_json:
        echo(f"mpsearch, version {__version__}")
        return
    from mpsearch.commands.doctor import versions

    print_json(versions())


def main() -> None:
    """Run the command line and leave with its exit code.

    0 done; 1 the gate said no or the budget is infeasible; 2 the input or the call is wrong;
    3 an error inside mpsearch; 130 interrupted.
    """
    # torch's threads would spin while they wait, which starves everything else on the machine
    # (measured: an epoch of 30 s instead of 8 s on 2 shared cores).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        # where the program began, interrupts ended it at once; from here they are exceptions
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        streams.prepare()
        code = run(sys.argv[1:])
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is done
    except InputError as error:
        code = _fail(error)
    except KeyboardInterrupt:
        code = _interrupted()
    if code == INTERRUPTED:  # Python may remember it and end by the signal after all
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def _show(error: click.ClickException) -> None:
    """What click says of a wrong call: its message holds words of the call."""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        echo(*error.ctx.get_usage().split("\n"), err=True)
        echo(
            f"Try '{error.ctx.command_path} {error.ctx.help_option_names[0]}' for help.",
            "",
            err=True,
        )
    message = error.format_message()
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        known = [name for one in error.ctx.command.get_params(error.ctx) for name in one.opts
                 if not getattr(one, "hidden", False)]  # fmt: skip
        name = error.option_name
        message = f"no such option {name!r}{did_you_mean(name, known)}"
    echo(f"Error: {message}", err=True)


def run(arguments: list[str]) -> int:
    """The exit code of one call; errors go to standard error in one or two lines."""
    if "--debug" in arguments:  # accepted anywhere, as the message below asks for it
        arguments = ["--debug", *(word for word in arguments if word != "--debug")]
    debug = arguments[:1] == ["--debug"]
    try:
        result = cli.main(arguments, prog_name="mpsearch", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        with contextlib.suppress(OSError):
            _show(error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _interrupted()
    except BrokenPipeError:  # `mpsearch … | head`
        streams.give_up_output()
        return 0
    except Exception as error:
        if debug:
            raise
        return _fail(error)


def _interrupted() -> int:
    streams.say("mpsearch: interrupted")
    return INTERRUPTED


def _fail(error: Exception) -> int:
    """Say what went wrong and give the exit code."""
    if lacks_memory(error):
        streams.say(
            "mpsearch: error: out of memory; allow more (see ulimit -v), or give less at once: a "
            "smaller network, fewer samples, a smaller --batch-size"
        )
        return 2
    if isinstance(error, MpsearchError):
        streams.say(*error.lines_after("mpsearch: error: "))
        return error.exit_code
    if isinstance(error, OSError):
        from mpsearch.files.whole import like_file

        where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
        if not where and error.errno in streams.FULL:  # a file would have its name
            where = " (standard output)"
            streams.give_up_output()
        close = like_file(error.filename) if error.errno == errno.ENOENT and where else ""
        streams.say(f"mpsearch: error: {error.strerror or error}{where}{close}")
        return 2
    text = " ".join(str(error).split())[:300]
    streams.say(
        f"mpsearch: internal error: {type(error).__name__}: {text}",
        "This is a bug in mpsearch; run again with --debug for the traceback and report it.",
    )
    return INTERNAL_ERROR
