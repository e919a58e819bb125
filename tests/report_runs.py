"""A small run folder whose facts are known by hand."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mpsearch.evaluation.evaluation import Evaluation, Evaluations, save_evaluations
from mpsearch.pareto.files import write_json
from mpsearch.pareto.front import front
from mpsearch.search.solving import solve
from mpsearch.statistics import wilson_interval
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice
from mpsearch.tables.provenance import Origin
from mpsearch.tables.table import Layer, LayerTable, Row

W4, W8 = Choice(4, 4), Choice(8, 8)
MODEL = "sha256:" + "c" * 64
HOSTILE = (
    "<script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>"
    ' & $x^{$ "q" \']]> -->'
)


def table(second: str = "two") -> LayerTable:
    """Sizes 600/1200 and 424/848 bytes; Ω 2.0/0.5 and 1.0/0.25."""
    layers = [Layer("one", "conv2d", "", 1000, 1000), Layer(second, "linear", "", 700, 100)]
    costs = {
        ("one", W4): (2.0, 0.2, 600, 16000),
        ("one", W8): (0.5, 0.1, 1200, 64000),
        (second, W4): (1.0, 0.0, 424, 1600),
        (second, W8): (0.25, 0.0, 848, 6400),
    }
    return LayerTable.from_rows(
        layers,
        [
            Row(layer, choice, omega, stderr, {"size_bytes": size, "bops": bops})
            for (layer, choice), (omega, stderr, size, bops) in costs.items()
        ],
    )


def row(name: str, correct: list[bool], size: int | None, bops: int | None) -> Evaluation:
    """All mistakes are samples of class 0 that are taken for class 1; class 1 has 40 samples."""
    hits, n = sum(correct), len(correct)
    confusion = ((hits - 40, n - hits), (0, 40))
    return Evaluation(
        name, n, hits / n, wilson_interval(hits, n), 0.3, (0.2, 0.4), tuple(correct), size, bops,
        confusion,
    )  # fmt: skip


def make_run(folder: Path, second: str = "two", data: str = "test.npz") -> None:
    """A whole run: a table, the optimum within 1700 bytes, the front and two measured networks."""
    made = table(second)
    made.write_csv(folder / "profile.csv")
    provenance = {
        "format": "mpsearch.provenance", "version": 1, "model_digest": MODEL,
        "data": "the sample in my model.pt",
        "metric": "hessian", "choices": ["w4a4", "w8a8"], "samples": 64, "seed": 3,
    }  # fmt: skip
    (folder / "profile.json").write_text(json.dumps(provenance))
    solution = solve(made, Budget({"size_bytes": 1700}))
    Assignment.from_solution(solution, made.digest, model_digest=MODEL).save(
        folder / "assignment.json"
    )
    write_json(front(made), folder / "front.json")
    rows = (
        row("FP32", [True] * 90 + [False] * 10, 7000, None),
        row("assignment", [False] * 3 + [True] * 88 + [False] * 9, 1624, 65600),
    )
    save_evaluations(
        Evaluations(data, "sha256:00", True, tied(rows, solution.choices)),
        folder / "evaluation.json",
    )


def tied(
    rows: tuple[Evaluation, ...], chosen: Mapping[str, Choice], model: str = MODEL
) -> tuple[Evaluation, ...]:
    """The rows as `evaluate` ties them: FP32 to the weights, others to these bits too."""
    return tuple(
        replace(one, origin=Origin(model, None if one.name == "FP32" else chosen, "sha256:00"))
        for one in rows
    )
