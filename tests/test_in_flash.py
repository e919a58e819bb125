"""Flash: predictions are never below a linked firmware, answers are those of exhaustive search."""

import json
import random
from pathlib import Path

import pytest
from test_fitting import CHOICES, every, layer_table, network, template

from mpsearch.cli import run
from mpsearch.device.exported import read_firmware
from mpsearch.device.firmware import WHOLE, build, check_tools
from mpsearch.errors import InputError
from mpsearch.exporters.c.code_bytes import flash_of
from mpsearch.exporters.c.folder import export_c
from mpsearch.exporters.c.targets import TARGETS
from mpsearch.exporters.firmware.boards import boards_of
from mpsearch.fitting.fitting import FLASH, Fitting
from mpsearch.fitting.flash import charges
from mpsearch.fitting.in_flash import fit_in_flash
from mpsearch.fitting.memory import Planned
from mpsearch.fitting.sizes import Sizes
from mpsearch.post_training.quantizing import apply
from mpsearch.post_training.repairing import PostTraining
from mpsearch.quantization.packing import size_bytes
from mpsearch.search.solving import solve
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice

PLENTY = 1 << 40


@pytest.mark.parametrize("name", ["option-a"])
def test_answers_are_those_of_exhaustive_search(name: str) -> None:
    """A set of kernels is a fixed charge: 16-bit activations need one more."""
    rng = random.Random(name)
    target = TARGETS["cortex-m4"]
    planned = Planned.of(template(name), target.family)
    table = layer_table(rng, planned.layers, CHOICES)
    fitting = Fitting(table, planned, solve, {}, {})
    known = charges(fitting.sizes, flash_of(target.name))
    taken = [
        (one, known.of(known.used(one)) + int(table.total(one, "size_bytes")))
        for one in every(table)
    ]
    assert len({known.of(known.used(one)) for one, _ in taken}) > 1
    totals = sorted(total for _, total in taken)
    for room in (totals[0] - 1, totals[0], *rng.sample(totals, 4), totals[-1]):
        found = fit_in_flash(fitting, Budget(), PLENTY, flash_of(target.name), room).solution
        fits = [one for one, total in taken if total <= room]
        assert bool(fits) == bool(found.choices)
        if fits:
            best = min(table.total(one, "omega") for one in fits)
            assert found.status == "optimal"
            assert table.total(found.choices, "omega") == pytest.approx(best, rel=1e-12)
            of_found = next(total for one, total in taken if one == dict(found.choices))
            assert found.totals[FLASH] == of_found
        else:
            assert found.smallest[FLASH].alone == totals[0]


@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m55"])
def test_no_firmware_takes_more_than_predicted(target: str, tmp_path: Path) -> None:
    """Linked by the project's own Makefile, at bits that need several kernels."""
    try:
        check_tools()
    except InputError as error:
        pytest.skip(str(error))
    found, data = network("option-a")
    choices = {
        layer.name: choice
        for layer, choice in zip(
            found.layers, (Choice(8, 8), Choice(4, 16), Choice(2, 8)), strict=True
        )
    }
    settings = PostTraining("mse", correct_bias=False, rounding="nearest", wide="8")
    export_c(
        apply(found, choices, data, settings), data, tmp_path / "firmware", target=TARGETS[target]
    )
    board = boards_of(target)[0]
    (tmp_path / "build").mkdir()
    exported = read_firmware(tmp_path / "firmware", board.name)
    built = build(exported, board, ("-O2",), tmp_path / "build", (WHOLE,))
    planned = Planned.of(template("option-a"), TARGETS[target].family)
    sizes = Sizes(planned, {name: [choices[name]] for name in planned.layers})
    known = charges(sizes, flash_of(target))
    predicted = known.of(known.used(choices)) + size_bytes(found, choices)
    assert built.flash_bytes <= predicted <= 2 * built.flash_bytes
    document = json.loads((tmp_path / "firmware" / "export.json").read_text())
    said = sum(document["constant_bytes"].values()) + document["code_bytes"]
    assert built.flash_bytes <= said <= 1.5 * built.flash_bytes


def test_flash_needs_a_microcontroller(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="--flash counts the code of cortex-m0"):
        flash_of("cortex-a72")
    (tmp_path / "t.csv").write_text("layer,w_bits,a_bits,omega,size_bytes,bops\na,8,8,1,2,3\n")
    assert run(["solve", str(tmp_path / "t.csv"), "--flash", "64KB"]) == 2
    assert "name one with --target, such as cortex-m4" in capsys.readouterr().err
