"""How fast, how small: the exported C program against onnxruntime, in one run on one machine.

    python benchmarks/runtime.py --networks tinym2net-battlefield -o runtime.json

Whole process: wall time from spawn to exit and peak memory of one inference. Steady state: one
sample on one core, again and again in one process. Rounds are interleaved: in each of them every
candidate runs once; shown are medians over the rounds, and the median of the ratios within rounds.
"""

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from runtime_litert import PEERS as LITERT
from runtime_peers import PEERS, Peer, machine
from runtime_subjects import ASSIGNMENTS, NETWORKS, Subject, load_subject

from mpsearch.errors import MpsearchError
from mpsearch.exporters.c.folder import export_c
from mpsearch.files.whole import write_atomic

WAYS = {"AVX2": "-O2 -mavx2", "VNNI": "-O2 -mavx512vnni -mavx512vl"}  # of compiling
NEEDS = {"AVX2": "avx2", "VNNI": "avx512_vnni"}  # words of /proc/cpuinfo
ROOM = 40 * 1024  # what a program may take beside its weights
Rounds = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Program:
    """An exported assignment, compiled; `document` is its export.json."""

    name: str
    path: Path
    document: Mapping[str, Any]


def compile_programs(
    subject: Subject, assignment: str, folder: Path, ways: Mapping[str, str]
) -> list[Program]:
    """Export, build in every way, and let it check itself: what computes something else is not
    timed."""
    source = folder / f"c-{assignment}"
    document = export_c(subject.quantized(assignment), subject.data, source).document
    programs = []
    for way, flags in ways.items():
        target = shutil.copytree(source, folder / f"c-{assignment}-{way}")
        for goal in ("build/network", "check"):
            call = ["make", "-s", "-C", str(target), f"CFLAGS={flags}", goal]
            done = subprocess.run(call, capture_output=True, text=True)
            if done.returncode:
                raise click.ClickException(f"{' '.join(call)} failed:\n{done.stderr[:2000]}")
        name = f"C {assignment.upper()} {way}".strip()
        programs.append(Program(name, target / "build" / "network", document))
    return programs


def ways_here() -> dict[str, str]:
    """Those of WAYS that this processor can run."""
    cpu = Path("/proc/cpuinfo")
    words = set(cpu.read_text().split()) if cpu.exists() else set()
    return {way: flags for way, flags in WAYS.items() if NEEDS[way] in words}


def interleaved(candidates: Mapping[str, Callable[[], float]], rounds: int) -> Rounds:
    """Every candidate's value in every round; the first round warms up and is left out."""
    found: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(rounds + 1):
        for name, measure in candidates.items():
            value = measure()
            if turn:
                found[name].append(value)
    return found


def ratio(rounds: Rounds, name: str, base: str) -> float:
    """Median over the rounds of `name` / `base`."""
    return statistics.median(a / b for a, b in zip(rounds[name], rounds[base], strict=True))


def steady(program: Program, sample: Path, repeat: int) -> Callable[[], float]:
    """Milliseconds of one inference in a process that repeats it: the median that it prints."""

    def measure() -> float:
        call = [str(program.path), "--input", str(sample), "--repeat", str(repeat)]
        done = subprocess.run(call, capture_output=True, text=True, check=True)
        return float(json.loads(done.stderr.splitlines()[0])["median_ns"]) / 1e6

    return measure


def steady_peer(peer: Peer, repeat: int) -> Callable[[], float]:
    """The same for a peer, in this process."""

    def measure() -> float:
        times = []
        for _ in range(repeat):
            start = time.perf_counter_ns()
            peer.run()
            times.append(time.perf_counter_ns() - start)
        return statistics.median(times) / 1e6

    return measure


def processes(
    commands: Mapping[str, Sequence[str]], spawn: Path, rounds: int
) -> tuple[Rounds, Rounds]:
    """(milliseconds, KB of peak memory) of whole processes, from spawn to exit."""
    peaks: dict[str, list[float]] = {name: [] for name in commands}

    def measure(name: str) -> float:
        done = subprocess.run(
            [str(spawn), *commands[name]], capture_output=True, text=True, check=True
        )
        took, peak, code = map(int, done.stdout.split())
        if code:
            raise click.ClickException(f"{name} left with exit code {code}:\n{done.stderr[:2000]}")
        peaks[name].append(peak)
        return took / 1e6

    times = interleaved({name: lambda n=name: measure(n) for name in commands}, rounds)  # type: ignore[misc]
    return times, {name: values[1:] for name, values in peaks.items()}


def measure(
    subject: Subject, folder: Path, ways: Mapping[str, str], rounds: int, repeat: int
) -> Any:
    """Everything about one network, as plain data."""
    by_assignment = [compile_programs(subject, name, folder, ways) for name in ASSIGNMENTS]
    programs = [program for way in zip(*by_assignment, strict=True) for program in way]
    peers = [make_peer(subject, folder) for make_peer in (*PEERS, *LITERT)]
    sample, spawn = folder / "sample.f32", folder / "spawn"
    sample.write_bytes(subject.sample)
    source = Path(__file__).with_name("spawn.c")
    subprocess.run(["cc", "-O2", "-o", str(spawn), str(source)], check=True)
    times = interleaved(
        {program.name: steady(program, sample, repeat) for program in programs}
        | {peer.name: steady_peer(peer, repeat) for peer in peers},
        rounds,
    )
    medians = {name: statistics.median(values) for name, values in times.items()}
    best = min((peer for peer in peers if peer.kind == "int8"), key=lambda p: medians[p.name])
    commands: dict[str, Sequence[str]] = {
        program.name: [str(program.path), "--input", str(sample)] for program in programs
    }
    for peer in peers:
        if peer.command is not None and (peer is best or peer.kind != "int8"):
            commands[f"Python + {peer.name}"] = peer.command(sample)
    walls, peaks = processes(commands, spawn, rounds)
    c8 = programs[0].name
    return {
        "network": subject.name,
        "int8_peer": best.name,
        "processes": {
            name: {
                "ms": statistics.median(walls[name]),
                "peak_kb": statistics.median(peaks[name]),
                "times_longer": ratio(walls, name, c8),
                "times_more_memory": ratio(peaks, name, c8),
            }
            for name in commands
        },
        "steady": {
            name: {"ms": value, "of_int8_peer": ratio(times, name, best.name)}
            for name, value in medians.items()
        },
        "sizes": {program.name: sizes(program) for program in programs},
    }


def sizes(program: Program) -> dict[str, Any]:
    """Bytes of the program and its weights, and the peak of its arena."""
    document = program.document
    bytes_, weights = program.path.stat().st_size, document["constant_bytes"]["weights"]
    return {
        "program": bytes_,
        "weights": weights,
        "payload": document["size_bytes"],
        "above_weights": bytes_ - weights,
        "arena_peak": document["arena"]["peak_bytes"],
        "arena_lower_bound": document["arena"]["lower_bound_bytes"],
    }


def show(found: Mapping[str, Any]) -> None:
    """The Markdown tables of one network."""
    click.echo(f"\n{found['network']}, whole process\n")
    table("process | ms | peak memory, MB | times as long | times the memory", [
        f"{name} | {row['ms']:.2f} | {row['peak_kb'] / 1024:.1f} | {row['times_longer']:.1f} "
        f"| {row['times_more_memory']:.1f}"
        for name, row in found["processes"].items()
    ])  # fmt: skip
    click.echo(f"\n{found['network']}, steady state; the int8 peer is {found['int8_peer']}\n")
    table("one sample, one core | ms | of the int8 peer's time", [
        f"{name} | {row['ms']:.3f} | {row['of_int8_peer']:.2f}"
        for name, row in found["steady"].items()
    ])  # fmt: skip
    click.echo(f"\n{found['network']}, bytes; at most {ROOM:,} above the weights are allowed\n")
    table("program | bytes | weights | above them | arena's peak | its lower bound", [
        f"{name} | {row['program']:,} | {row['weights']:,} | {row['above_weights']:,} "
        f"| {row['arena_peak']:,} | {row['arena_lower_bound']:,}"
        for name, row in found["sizes"].items()
    ])  # fmt: skip


def table(head: str, rows: Sequence[str]) -> None:
    click.echo(f"| {head} |")
    click.echo("|---" * (head.count("|") + 1) + "|")
    for row in rows:
        click.echo(f"| {row} |")


@click.command(help=__doc__.split("\n\n")[0])
@click.option("--networks", default=",".join(NETWORKS), show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=15, show_default=True)
@click.option("--repeat", type=click.IntRange(1, 100000), default=100, show_default=True)
@click.option("--cflags", help="One way of compiling instead of those that the processor can run.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Also write the JSON here.")
def main(
    networks: str, rounds: int, repeat: int, cflags: str | None, as_json: bool, output: str | None
) -> None:
    """Print one set of tables per network."""
    for tool in ("cc", "make"):
        if shutil.which(tool) is None:
            raise click.ClickException(f"there is no {tool}; install a C compiler and make")
    ways = {"": cflags} if cflags else ways_here() or {"": "-O2"}
    about = {**machine(), "cflags": ways, "rounds": rounds, "repeat": repeat}
    document: dict[str, Any] = {**about, "load": os.getloadavg()[0], "networks": []}
    if not as_json:
        click.echo(", ".join(f"{key} {value}" for key, value in document.items() if value))
    try:
        for name in networks.split(","):
            with tempfile.TemporaryDirectory() as folder:
                found = measure(load_subject(name), Path(folder), ways, rounds, repeat)
            document["networks"].append(found)
            if not as_json:
                show(found)
    except MpsearchError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(document, indent=1))
    if output is not None:
        write_atomic(output, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
