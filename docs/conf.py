"""The documentation site: `make docs`. Sphinx reads the repository as it is, so links hold in both.

Nothing is fetched, when building or when reading: no CDN, no web fonts, no inventories of other
projects. Formulas become MathML (`docs/site/mathml.py`), commands and functions are read from the
code (`docs/site/commands.py`, autodoc).
"""

import sys
from dataclasses import is_dataclass
from pathlib import Path

from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer

import mpsearch
from mpsearch import __version__

sys.path.insert(0, str(Path(__file__).parent / "site"))

project = "mpsearch"
author = "The mpsearch maintainers"
copyright = author
version = release = __version__

# Sources lie in the whole repository: README.md and docs/ link to each other by relative paths.
root_doc = "docs/index"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/*.md"]
exclude_patterns = [".*", "build", "demo", "mpsearch*", "shared", "tests"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "commands", "mathml"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
html_math_renderer = "mathml"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 88
default_role = "code"
smartquotes = False  # -- in a help text is an option, not a dash
# Types of other projects: their pages are not fetched, so there is nothing to link to.
nitpick_ignore_regex = [
    ("py:.*", r"(collections|contextlib|fractions|nn|numpy|os|pathlib|pd|torch)\..*")
]
# Parts of public results that are not listed on the page themselves.
nitpick_ignore = [
    ("py:class", "tuple[str"),  # half of a tuple of tuples
    ("py:class", "tuple[~mpsearch.graph.refusals.Refusal"),  # half of a tuple of any length
    ("py:class", "Limits"),  # the options of gate, by name
    ("py:class", "Measured"),  # what solve takes to measure, by name
    ("py:class", "mpsearch.commands.console.Steps"),
    ("py:class", "mpsearch.comparing.diffing.AccuracyChange"),
    ("py:class", "mpsearch.comparing.diffing.TotalChange"),
    ("py:class", "mpsearch.comparing.layers.LayerChange"),
    ("py:class", "mpsearch.gating.evidence.Evidence"),
    ("py:class", "mpsearch.gating.words.Paired"),
    ("py:class", "mpsearch.interactions.k_best.Candidate"),
    ("py:class", "mpsearch.models.training.Accuracy"),
    ("py:class", "mpsearch.models.training.Epoch"),
    ("py:class", "mpsearch.refining.repaired_errors.Trial"),
    ("py:class", "mpsearch.reports.facts.Facts"),
    ("py:class", "mpsearch.explaining.explaining.Decision"),
    ("py:class", "mpsearch.explaining.explaining.WhatIf"),
    ("py:class", "mpsearch.search.feasible_limits.Range"),
    ("py:class", "mpsearch.integer.graph.IntegerGraph"),
    ("py:class", "mpsearch.explaining.prices.Marginal"),
    ("py:class", "mpsearch.quantization.quantized.QuantizedLayer"),
]

html_theme = "furo"
html_title = f"mpsearch {release}"
html_extra_path = ["site/index.html"]  # the root leads to docs/index.html
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}


# Where a class is defined -> the public name that it is documented under.
PUBLIC = {f"{module}.{name}": f"mpsearch.{name}" for name, module in mpsearch._HOME.items()}


def link_public_name(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, shown: nodes.TextElement
) -> nodes.Element | None:
    """Signatures name the module of a class; the page has it as a name of the package."""
    name = PUBLIC.get(node.get("reftarget", ""))
    if name is None or node.get("refdomain") != "py":
        return None
    return env.get_domain("py").resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], name, node, shown
    )


def list_fields(
    app: Sphinx, what: str, name: str, found: object, options: object, lines: list[str]
) -> None:
    """Below a dataclass its fields, each with the text that stands under it in the source.

    Their types and defaults are in the signature; as members they would be there a second time.
    """
    if not isinstance(found, type) or not is_dataclass(found):
        return
    for (owner, field), text in (
        ModuleAnalyzer.for_module(found.__module__).find_attr_docs().items()
    ):
        if owner == found.__qualname__:
            lines += ["", f"`{field}`", *(f"    {line}" for line in text)]


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", list_fields)
    app.connect("missing-reference", link_public_name)
    app.add_lexer("csv", TextLexer)  # Pygments has none
