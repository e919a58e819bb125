"""What one cell (layer, choice) of a metric of the outputs costs, in forward passes.

Run `python benchmarks/partial_passes.py`. Every layer of TinyM²Net-battlefield and ResNet-20 takes
2, 3, 4 and 8 bits, weights and activations, on one batch of 32; the peer runs the whole network for
each cell. CPU time of one thread, median of three, relative to one forward pass in the same run;
memory as in benchmarks/sensitivity.py, relative to a plain forward and backward pass.
"""

import torch
from cases import CASES, Case, peak_megabytes, plain, timed

from mpsearch.graph.partial_forward import PartialForward
from mpsearch.quantization.quantized import assemble, quantize_layer
from mpsearch.quantization.quantizer import FLOAT_BITS
from mpsearch.sensitivity.cells import Cell, cells_of, replacement
from mpsearch.sensitivity.study import Study
from mpsearch.tables.choice import Choice

CHOICES = tuple(Choice(bits, bits) for bits in (2, 3, 4, 8))
FLOAT = Choice(FLOAT_BITS, FLOAT_BITS)


def forward(study: Study) -> None:
    with torch.no_grad():
        study.network(*study.data.inputs)


def partial(study: Study, cells: dict[str, list[Cell]]) -> None:
    """Every cell from the changed layer on."""
    engine = PartialForward(study.network.graph, study.data.inputs)
    values = engine.run(study.data.inputs)
    for layer in study.network.layers:
        engine.rerun(layer, values, replacement(study, layer, cells[layer.name]), len(CHOICES))


def whole(study: Study, scales: dict[str, list[Cell]]) -> None:
    """Every cell by a pass through the whole network, as without kept values."""
    network = study.network
    floats = {
        layer.name: quantize_layer(network, layer, FLOAT, study.histograms[layer.name])
        for layer in network.layers
    }
    for layer in network.layers:
        for cell in scales[layer.name]:
            one = quantize_layer(
                network,
                layer,
                cell.choice,
                study.histograms[layer.name],
                None if cell.weight is None else cell.weight.scales,
            )
            changed = assemble(network, {**floats, layer.name: one})
            with torch.no_grad():
                changed(*study.data.inputs)


def show(case: Case) -> None:
    base = case.study
    study = Study(
        base.network, base.data, base.loss, CHOICES, base.batch_size, 0, base.rtol, base.max_probes
    )
    cells = {layer.name: cells_of(study, layer) for layer in study.network.layers}

    def run(method: str) -> float:
        def once(_: Case) -> dict[str, float]:
            {"forward": lambda: forward(study), "partial": lambda: partial(study, cells),
             "whole": lambda: whole(study, cells)}[method]()  # fmt: skip
            return {}

        return timed(once, case, 3)[1]

    unit, count = run("forward"), sum(map(len, cells.values()))
    memory = peak_megabytes(lambda: partial(study, cells)) / peak_megabytes(lambda: plain(case))
    print(
        f"| {case.name} | {count} | {run('whole') / count / unit:.2f} | "
        f"{run('partial') / count / unit:.2f} | {memory:.2f} |"
    )


def main() -> None:
    torch.set_num_threads(1)
    print("| network | cells | whole passes, per cell | partial passes, per cell | memory |")
    print("|---|---|---|---|---|")
    for name in ("tinym2net-battlefield", "resnet20"):
        show(CASES[name]())


if __name__ == "__main__":
    main()
