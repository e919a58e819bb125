"""`allocate` as Python calls it: a table of any tool in, proven bits out, as the file of another.

What is printed of it, for the command too. Nothing here needs torch.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpsearch.errors import InputError
from mpsearch.python.limits import Amount, Columns, Groups
from mpsearch.recipes.writing import RecipeFile, write_recipe
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.budget import Budget
from mpsearch.tables.choice import Choice
from mpsearch.tables.layer_choices import Choices, Pins
from mpsearch.tables.solution import Solution
from mpsearch.tables.table import LayerTable

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Allocated:
    """What `allocate` found, and the file that it wrote."""

    solution: Solution
    """The assignment, what it takes, and how much of that is proven; without choices where nothing
    is within the budget, and then nothing was written."""
    recipe: RecipeFile | None = None
    """The other tool's file; None where `recipe` names none."""
    path: str = ""
    """The file that was written; empty: none."""

    @property
    def bits(self) -> dict[str, Choice]:
        """`{"blk.0.ffn_down": Choice(4.5, 0, label='Q4_K')}`: what every layer gets."""
        return self.solution.bits

    def __repr__(self) -> str:
        wrote = f"; wrote {self.path}" if self.path else ""
        return f"Allocated({self.solution!r}{wrote})"


def allocate(
    table: "LayerTable | str | os.PathLike[str] | pd.DataFrame",
    budget: Budget | Amount | Mapping[str, Amount] | None = None,
    *,
    size: Amount | None = None,
    bops: Amount | None = None,
    limits: Any = None,
    at_least: Any = None,
    pin: Pins = (),
    exclude: Choices = (),
    allow: Choices = (),
    columns: Columns = None,
    groups: Groups = (),
    recipe: str | None = None,
    to: str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | None = None,
    time_limit: float | None = None,
) -> Allocated:
    """Read a table of any tool, solve it to a proof, and write the answer as another tool's file.

    table, columns, groups: as `read_table` takes them; limits and time_limit: as `solve`. recipe:
    the tool, `"torchao"` (`mpsearch recipes`): its choices alone, and `size` in its own bytes. to:
    what to write, the file of the tool, or assignment.json where recipe names none. model: for
    tools whose file holds it.

    A budget without answer writes nothing; its solution says what would help. Raises InputError as
    `read_table`, `solve` and `recipe`.

    >>> found = mpsearch.allocate(table, size="100%", recipe="modelopt", to="modelopt.yaml")
    >>> found.solution.status, found.path
    ('optimal', 'modelopt.yaml')
    """
    from mpsearch.python.searching import solve  # more than the command needs

    solution = solve(
        table, budget, size=size, bops=bops, limits=limits, at_least=at_least, pin=pin,
        exclude=exclude, allow=allow, columns=columns, groups=groups, recipe=recipe,
        time_limit=time_limit,
    )  # fmt: skip
    if not solution.choices:
        return Allocated(solution)
    return written(solution.to_assignment(), solution, recipe, model, to)


def written(
    assignment: Assignment,
    solution: Solution,
    tool: str | None,
    model: str | os.PathLike[str] | None,
    output: str | os.PathLike[str] | None,
) -> Allocated:
    """The assignment of a solution as the file of a tool, or as assignment.json; written to
    `output` where that is given. Raises InputError for a model without a tool."""
    path = "" if output is None else os.fspath(output)
    if tool is None:
        if model is not None:
            raise InputError(
                "the model belongs into the file of some tools; name one of them: "
                '`--for llama.cpp`, recipe="llama.cpp"'
            )
        if output is not None:
            assignment.save(output)
        return Allocated(solution, None, path)
    at = None if model is None else os.fspath(model)
    return Allocated(solution, write_recipe(assignment, tool, solution.table, at, output), path)
