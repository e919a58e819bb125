"""What becomes of 74 small networks of 12 families: in, measured, and out again.

Run `python benchmarks/zoo.py`; `--only NAME …` takes single networks or families, `--no-compile`
leaves the C program out. Needs the extras `onnx` and `litert` and a C compiler. The networks have
random weights (their batch norms have seen data) and lie in `benchmarks/zoo_networks/`.

A row for each network, in order:
- layers: as many as a person counts in its definition;
- MACs: what the layers have and what is computed outside of them, against torch's FlopCounterMode
  on the network itself (recurrent matrices, which it does not see, by hand);
- file: saved and loaded again, the outputs differ by 0, in batches of one and of three;
- applied: W4A8 and W8A8 in turns, and the quantized file gives the same outputs;
- measured: evaluated with labels (outputs [N, K] as classes) and without, as far as each applies;
- C, LiteRT, ONNX: written, and agreeing with the network as it was assigned by the export's own
  check; for C the program, compiled with gcc, gives the integers of the reference bit for bit.
A cell that failed says why; the reasons follow below the table. The last line counts.
"""

import argparse
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import torch
from zoo_networks.counting import torch_macs
from zoo_networks.network import ZooNetwork, made

import mpsearch
from mpsearch.errors import InputError
from mpsearch.graph.network import Network
from mpsearch.profiling.float_operators import float_part

FAMILIES = ("mobile", "residual", "audio", "recurrent", "attention", "dense", "series")
COLUMNS = ("layers", "MACs", "file", "applied", "measured", "c", "litert", "onnx")
SAMPLES = 32


@dataclass
class Row:
    """The cells of one network, and why some of them failed."""

    network: ZooNetwork
    cells: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @contextmanager
    def cell(self, name: str) -> Iterator[None]:
        """What happens inside decides the cell; a failed one stops nothing else."""
        try:
            yield
        except Exception as error:  # a benchmark counts whatever goes wrong
            lines = [line for line in str(error).splitlines() if line] or [repr(error)]
            kind = "" if isinstance(error, InputError | Wrong) else f"{type(error).__name__}: "
            self.cells[name], self.reasons[name] = "no", kind + " / ".join(lines)[:300]
        else:
            self.cells.setdefault(name, "yes")


class Wrong(Exception):
    """A result that is not as it should be."""


def expect(right: bool, otherwise: str) -> None:
    if not right:
        raise Wrong(otherwise)


def networks() -> list[ZooNetwork]:
    """All of them, family by family."""
    return [n for name in FAMILIES for n in import_module(f"zoo_networks.{name}").NETWORKS]


def tried(zoo: ZooNetwork, folder: Path, compile_c: bool) -> Row:
    """One row of the table."""
    row, begin = Row(zoo), time.perf_counter()
    model = made(zoo)
    torch.manual_seed(1)
    samples = zoo.inputs(SAMPLES)
    with row.cell("loads"):
        network = Network.from_module(model, tuple(x[:2] for x in samples))
        _same_outputs(model, network, samples)
    if row.cells["loads"] == "yes":
        with row.cell("layers"):
            found = len(network.layers)
            expect(found == zoo.layers, f"{found} layers, by hand {zoo.layers} ({zoo.by_hand})")
        with row.cell("MACs"):
            macs = sum(layer.macs for layer in network.layers) + float_part(network).macs
            counted = torch_macs(model, samples) + zoo.recurrent_macs
            expect(macs == counted, f"{macs:,} MACs, torch counts {counted:,}")
        _further(row, model, network, samples, folder, compile_c)
    row.seconds = time.perf_counter() - begin
    return row


def _same_outputs(
    model: torch.nn.Module, network: Network, samples: tuple[torch.Tensor, ...]
) -> None:
    """The graph against the module, every output, to the rounding of folded batch norms."""
    with torch.no_grad():
        expected = [y for y in _leaves(model(*samples)) if y.is_floating_point()]
        found = list(mpsearch.split_outputs(network.outputs, network(*samples)).values())
    for one, other in zip(expected, found, strict=True):
        if one.shape != other.shape:  # a batch that lies elsewhere is transposed at the border
            one = one.transpose(0, 1)
        off = float((one - other).abs().max() / one.abs().max().clamp(min=1e-9))
        expect(off < 1e-4, f"outputs differ by {off:.1e} of the largest")


def _leaves(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from _leaves(entry)
    elif isinstance(value, tuple | list):
        for entry in value:
            yield from _leaves(entry)


def _further(
    row: Row,
    model: torch.nn.Module,
    network: Network,
    samples: tuple[torch.Tensor, ...],
    folder: Path,
    compile_c: bool,
) -> None:
    arrays = {f"x{index}": x.numpy() for index, x in enumerate(samples)}
    path = folder / "model.pt"
    with row.cell("file"):
        mpsearch.save(model, path, tuple(x[:1] for x in samples), sample=arrays)
        loaded = mpsearch.load(path).network
        for count in (1, 3):
            rows = tuple(x[:count] for x in samples)
            expect(torch.equal(network(*rows), loaded(*rows)), "outputs differ after loading")
        network = loaded
    named = {f"x{index}": x for index, x in enumerate(samples)}
    data = mpsearch.bind(mpsearch.Arrays("samples", named), network, need_labels=False)
    choices = {
        layer.name: mpsearch.Choice(8 if index % 2 else 4, 8)
        for index, layer in enumerate(network.layers)
    }
    with row.cell("applied"):
        quantized = mpsearch.apply(network, choices, data)
        mpsearch.save_quantized(quantized, folder / "q.pt")
        again = mpsearch.load_quantized(folder / "q.pt")
        expect(torch.equal(quantized(*samples), again(*samples)), "outputs differ after loading")
    if row.cells["applied"] != "yes":
        return
    with row.cell("measured"):
        row.cells["measured"] = _measured(network, again, samples, data)
    for form in ("c", "litert", "onnx"):
        with row.cell(form):
            output = folder / {"c": "c", "litert": "q.tflite", "onnx": "q.onnx"}[form]
            exported = mpsearch.export(again, output, format=form, data=data)
            expect(exported.ok, " / ".join(exported.lines))
            if form == "c" and compile_c:
                _bit_equal(output)


def _measured(
    network: Network,
    quantized: mpsearch.QuantizedNetwork,
    samples: tuple[torch.Tensor, ...],
    data: mpsearch.Data,
) -> str:
    """`labels, none`: which of the two measurements this network has."""
    reference = network(*samples)
    mpsearch.evaluate(quantized, data, fp32=network)
    if len(network.output_shape) != 1 or network.output_shape[0] < 2 or len(network.outputs) > 1:
        return "without"
    named = {f"x{index}": x for index, x in enumerate(samples)} | {"y": reference.argmax(1)}
    labelled = mpsearch.bind(mpsearch.Arrays("samples", named), network)
    evaluated = mpsearch.evaluate(quantized, labelled)
    same = float((quantized(*samples).argmax(1) == reference.argmax(1)).float().mean())
    expect(abs((evaluated.accuracy or 0.0) - same) < 1e-6, "accuracy is not the share of matches")
    return "both"


def _bit_equal(folder: Path) -> None:
    """`make check` compares the program's integers with the reference's."""
    build = ["make", "-s", "-C", str(folder), "check", "CFLAGS=-O1 -std=c99"]
    run = subprocess.run(build, capture_output=True, text=True, timeout=600)
    expect(run.returncode == 0, f"make check: {(run.stdout + run.stderr)[-200:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=(), help="networks or families by name")
    parser.add_argument("--no-compile", action="store_true", help="C is written and not compiled")
    arguments = parser.parse_args()
    rows = []
    print("| family | network | loads | " + " | ".join(COLUMNS) + " |")
    print("|---|---|" + "---|" * (len(COLUMNS) + 1))
    for zoo in networks():
        if arguments.only and not {zoo.name, zoo.family} & {*arguments.only}:
            continue
        with tempfile.TemporaryDirectory() as folder:
            row = tried(zoo, Path(folder), not arguments.no_compile)
        rows.append(row)
        cells = [row.cells.get(name, "") for name in ("loads", *COLUMNS)]
        print(f"| {zoo.family} | {zoo.name} | " + " | ".join(cells) + " |", flush=True)
    print()
    for row in rows:
        for name, reason in row.reasons.items():
            print(f"- {row.network.name}, {name}: {reason}")
    print()
    counted = [
        f"{name} {sum(row.cells.get(name, 'no') not in ('no', '') for row in rows)}"
        for name in ("loads", *COLUMNS)
    ]
    seconds = sum(row.seconds for row in rows)
    print(f"of {len(rows)}: {', '.join(counted)}; {seconds:.0f} s")


if __name__ == "__main__":
    main()
