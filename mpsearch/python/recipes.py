"""`recipe` as Python calls it: an assignment in any form as another tool's file."""

import os
from typing import TYPE_CHECKING

from mpsearch.python.limits import as_assignment, as_table
from mpsearch.recipes.writing import RecipeFile, write_recipe
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.solution import Solution
from mpsearch.tables.table import LayerTable

if TYPE_CHECKING:
    import pandas as pd


def recipe(
    assignment: Solution | Assignment | str | os.PathLike[str],
    tool: str | None = None,
    output: str | os.PathLike[str] | None = None,
    *,
    table: "LayerTable | str | os.PathLike[str] | pd.DataFrame | None" = None,
    model: str | os.PathLike[str] | None = None,
) -> RecipeFile:
    """The assignment as the configuration file of another tool, as `mpsearch recipe` writes it.

    assignment: what `solve` returned, an Assignment, or a path. tool: `"torchao"`, see `mpsearch
    recipes`; by default the one that `solve(recipe=…)` searched for. output: the file. table: the
    one that it was chosen from, which knows shapes; a Solution has it. model: its file, for tools
    whose file holds it. Raises InputError for layers that the tool does not take at their choice.

    >>> best = mpsearch.solve(table, recipe="modelopt")
    >>> written = mpsearch.recipe(best, output="modelopt.json")
    >>> written.totals["modelopt_bytes"] == best.totals["modelopt_bytes"]
    True
    """
    given, table = as_assignment(assignment, table)
    whole = None if table is None else as_table(table, groups=given.search.get("group", ()))
    path = None if model is None else os.fspath(model)
    return write_recipe(given, tool, whole, path, output)
