"""`--help` under headings: which options stand together is data beside the command.

    GROUPS = {"Limits": ("max-size", "max-bops"), "Output": ("json",)}
    @click.command(cls=Grouped, groups=GROUPS)

An option that no group names stands under the last heading, `Further options`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import click

Groups = Mapping[str, Sequence[str]]
FURTHER = "Further options"
READING = ("architecture", "trust", "input-shape", "batch-dim", "fix", "max-model-memory")
REPAIRING = (
    "ranges", "rounding", "bias-correction", "equalize", "learn-scales", "per-tensor", "wide",
    "seed",
)  # fmt: skip


class Grouped(click.Command):
    """A command whose options stand in groups, by heading: their names without dashes."""

    def __init__(self, *args: Any, groups: Groups, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.groups = groups

    def grouped(self, ctx: click.Context) -> dict[str, list[click.Option]]:
        """Heading -> its options, in the order that the group names them."""
        options = {
            spelling.lstrip("-"): option
            for option in self.get_params(ctx) if isinstance(option, click.Option)
            for spelling in option.opts
        }  # fmt: skip
        found = {
            heading: [options[name] for name in names if name in options]
            for heading, names in self.groups.items()
        }
        placed = [option for placed in found.values() for option in placed]
        found[FURTHER] = [
            option for option in self.get_params(ctx)
            if isinstance(option, click.Option) and option not in placed
        ]  # fmt: skip
        return {heading: options for heading, options in found.items() if options}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Every group as a section of its own, all with one width of names."""
        sections = {
            heading: [record for option in options if (record := option.get_help_record(ctx))]
            for heading, options in self.grouped(ctx).items()
        }
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)
