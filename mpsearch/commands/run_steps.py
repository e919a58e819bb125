"""The steps of `mpsearch run`, each as the command that repeats it, with the files that it reads
and writes."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpsearch.commands.options import ModelOptions, SearchOptions
from mpsearch.errors import InputError
from mpsearch.running.finished_steps import Step
from mpsearch.tables.budget import Budget, total_of
from mpsearch.tables.choice import Choice
from mpsearch.tables.provenance import provenance_path
from mpsearch.tables.table import LayerTable
from mpsearch.tables.units import parse_amount, parse_bytes

EIGHT = Choice(8, 8)
EXPORTED = {"onnx": "network.onnx", "litert": "network.tflite"}  # others are folders


@dataclass(frozen=True)
class RunRequest:
    """The options of `mpsearch run`, as they were typed; its help says what each is."""

    path: str
    within: SearchOptions
    ram: str | None
    flash: str | None
    target: str | None
    form: str | None
    data: str | None
    test: str | None
    choices: str | None
    loss: tuple[str, ...]
    refine: int
    points: int
    device: str
    output: str | None
    model: ModelOptions
    as_json: bool

    @property
    def folder(self) -> str:
        """Where everything goes."""
        return self.output or f"{Path(self.path).stem}-run"

    @property
    def format(self) -> str | None:
        """What is exported: C where only the processor was named; None: nothing is."""
        return "c" if self.form is None and self.target is not None else self.form

    @property
    def fits_memory(self) -> bool:
        """Whether the search is one in a device's memory, which measures nothing."""
        return self.ram is not None or self.flash is not None

    @property
    def is_limited(self) -> bool:
        """Whether there is any limit to search under."""
        within = self.within
        texts = (within.size, within.bops_limit, *within.limits, *within.lower_limits)
        return self.fits_memory or any(texts)

    def check(self) -> None:
        """Raise InputError for what a later step would refuse, before time is spent."""
        from mpsearch.exporters.c.targets import find_target

        if self.flash is not None and self.target is None:
            raise InputError(
                "--flash counts code, which differs from processor to processor; name one with "
                "--target, such as cortex-m4, or limit the constants alone with --size"
            )
        if self.form not in (None, "c") and (self.target is not None or self.fits_memory):
            raise InputError(
                "--target, --ram and --flash are about the C export; leave them out, or leave out "
                f"--format {self.form}"
            )
        find_target(self.target)
        for column, amount in (("size_bytes", self.within.size), ("bops", self.within.bops_limit)):
            if amount is not None:
                parse_amount(column, amount)
        for amount in (self.ram, self.flash):
            if amount is not None:
                parse_bytes(amount)


@dataclass(frozen=True)
class Steps:
    """The steps of a request; `converts`: whether the network has to become an mpsearch file with
    a sample first, because it is none or because data were named."""

    request: RunRequest
    converts: bool

    def check(self) -> None:
        """Raise InputError where a step would write over the model that it reads."""
        network, path = self.network, self.request.path
        if self.converts and os.path.exists(network) and os.path.samefile(network, path):
            raise InputError(
                f"{path} is what the run writes with --data; choose another folder with -o"
            )

    def file(self, name: str) -> str:
        """A file of the run's folder, as the commands name it."""
        return os.path.join(self.request.folder, name)

    @property
    def network(self) -> str:
        """The model file that the steps read."""
        if not self.converts:
            return self.request.path
        stem = Path(self.request.path).stem  # reports call the network like its file
        return self.file("network.pt" if stem == "quantized" else f"{stem}.pt")

    @property
    def table(self) -> str:
        """The profile."""
        return self.file("profile.csv")

    @property
    def assignment(self) -> str:
        """The solution."""
        return self.file("assignment.json")

    @property
    def evaluation(self) -> str:
        """What was measured."""
        return self.file("evaluation.json")

    @property
    def report(self) -> str:
        """The page."""
        return self.file("report.html")

    @property
    def exported(self) -> str | None:
        """The folder or file of the export; None without one."""
        form = self.request.format
        return None if form is None else self.file(EXPORTED.get(form, form))

    def convert(self) -> Step:
        """Model and data -> a file of its name, with a sample."""
        request = self.request
        words = ["convert", request.path, *request.model.words]
        if request.data is not None:
            words += ["--data", request.data]
        reads = (request.path, *_files_of(request.data), *_files_of(request.model.architecture))
        return Step("convert", (*words, "-o", self.network), reads, (self.network,))

    def profile(self) -> Step:
        """Network -> profile.csv."""
        request = self.request
        words = ["profile", *self._network()]
        if request.choices is not None:
            words += ["--choices", request.choices]
        elif request.form is not None:
            words += ["--format", request.form]
        words += [*_loss_words(request.loss), *self._device(), "-o", self.table]
        writes = (self.table, str(provenance_path(self.table)))
        return Step("profile", tuple(words), (self.network,), writes)

    def solve(self) -> Step:
        """profile.csv -> assignment.json, by measurement where that is asked and possible."""
        request = self.request
        words = ["solve", self.table, *_search_words(request.within)]
        reads = [self.table, str(provenance_path(self.table))]
        if request.form is not None:
            words += ["--format", request.form]
        if request.fits_memory:
            for option in ("ram", "flash", "target"):
                value = getattr(request, option)
                words += [] if value is None else [f"--{option}", value]
        elif request.refine:
            network, *more = self._network()
            words += ["--refine", str(request.refine), "--fp32", network, *more]
            words += self._device()
            reads.append(self.network)
        words += ["-o", self.assignment]
        return Step("solve", tuple(words), tuple(reads), (self.assignment,))

    def apply(self) -> Step:
        """Network and assignment -> quantized.pt."""
        output = self.file("quantized.pt")
        words = ["apply", *self._network(positional=(self.assignment,)), *self._device()]
        reads = (self.network, self.assignment)
        return Step("apply", (*words, "-o", output), reads, (output,))

    def evaluate(self, uniform: Sequence[Choice]) -> Step:
        """The assignment beside FP32 and the same choice everywhere -> evaluation.json."""
        words = ["evaluate", *self._network(), "--assignment", self.assignment]
        for choice in uniform:
            words += ["--uniform", str(choice)]
        words += [*self._measured(), *_loss_words(self.request.loss), "-o", self.evaluation]
        reads = (self.network, self.assignment, *_files_of(self.request.test))
        return Step("evaluate", tuple(words), reads, (self.evaluation,))

    def front(self) -> Step:
        """profile.csv -> all budgets at once."""
        words = ["front", self.table, *_pin_words(self.request.within)]
        csv, document, picture = self._front_files()
        reads = (self.table, str(provenance_path(self.table)))
        words += ["-o", csv, "--plot", picture]
        return Step("front", tuple(words), reads, (csv, document, picture))

    def measured_front(self) -> Step:
        """A few points of the front, measured; what was measured on other samples is dropped."""
        csv, document, picture = self._front_files()
        words = ["evaluate", *self._network(), "--front", csv, "--points", str(self.request.points)]
        words += [*self._measured(), "--remeasure", "--plot", picture]
        reads = (self.network, self.table, *_files_of(self.request.test))
        return Step("measure front", tuple(words), reads, (csv, document, picture))

    def page(self) -> Step:
        """All of it -> report.html."""
        pieces = [self.table, str(provenance_path(self.table)), self.assignment, self.evaluation]
        reads = (*pieces, self._front_files()[1])
        return Step("report", ("report", self.request.folder), reads, (self.report,))

    def export(self) -> Iterator[Step]:
        """quantized.pt -> what a device runs; nothing where no format was named."""
        request, output = self.request, self.exported
        if output is None or request.format is None:
            return
        quantized = self.file("quantized.pt")
        words = ["export", quantized, "--fp32", *self._network(), "--format", request.format]
        if request.target is not None:
            words += ["--target", request.target]
        is_file = request.format in EXPORTED
        written = output if is_file else os.path.join(output, "export.json")
        reads = (quantized, self.network)
        yield Step("export", (*words, "-o", output), reads, (written,))

    def _front_files(self) -> tuple[str, str, str]:
        return self.file("front.csv"), self.file("front.json"), self.file("front.png")

    def _network(self, positional: tuple[str, ...] = ()) -> list[str]:
        """The network, further arguments, and what its file takes to be read."""
        model = self.request.model
        if not self.converts:
            return [self.network, *positional, *model.words]
        most = [] if model.max_model_memory is None else [model.max_model_memory]
        return [self.network, *positional, *_each("--max-model-memory", most)]

    def _device(self) -> list[str]:
        return [] if self.request.device == "cpu" else ["--device", self.request.device]

    def _measured(self) -> list[str]:
        """On what, where and as what networks are measured: `solve --ram` counts with 8 bits for
        what is stored between layers, and `apply` takes that by itself."""
        words = [] if self.request.test is None else ["--data", self.request.test]
        wide = ["--wide", "8"] if self.request.fits_memory else []
        return [*words, *self._device(), *wide]


def comparable(table: LayerTable, budget: Budget) -> list[Choice]:
    """What an assignment is compared with: 8 bits everywhere, and the largest choice that, in every
    layer, is within the limits."""
    everywhere = [
        choice
        for place, choice in enumerate(table.choices)
        if (table.row_index[:, place] >= 0).all()
    ]
    fitting = []
    for choice in everywhere:
        chosen = dict.fromkeys(table.layer_names, choice)
        within = all(total_of(table, chosen, key) <= most for key, most in budget.limits.items())
        if within and all(
            total_of(table, chosen, key) >= least for key, least in budget.at_least.items()
        ):
            fitting.append(
                (total_of(table, chosen, "size_bytes"), -table.total(chosen, "omega"), choice)
            )
    best = [max(fitting, key=lambda one: one[:2])[2]] if fitting else []
    return [*dict.fromkeys([EIGHT, *best])]


def _files_of(name: str | None) -> tuple[str, ...]:
    """The file that a user's name of data or of a network stands for; none for a bundled one."""
    if name is None:
        return ()
    module = name.partition(":")[0].replace(".", os.sep) + ".py"
    return tuple(path for path in (name, module) if os.path.isfile(path))


def _each(option: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (option, value)]


def _loss_words(losses: Sequence[str]) -> list[str]:
    return _each("--loss", losses)


def _pin_words(within: SearchOptions) -> list[str]:
    return [
        *_each("--pin", within.pins),
        *_each("--exclude", within.excludes),
        *_each("--allow", within.allows),
    ]


def _search_words(within: SearchOptions) -> list[str]:
    return [
        *_each("--size", [] if within.size is None else [within.size]),
        *_each("--bops-limit", [] if within.bops_limit is None else [within.bops_limit]),
        *_each("--limit", within.limits),
        *_each("--at-least", within.lower_limits),
        *_pin_words(within),
    ]
