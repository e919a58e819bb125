"""RAM of the network that is judged: the static memory of the C export.

It is planned from the lifetimes in the table's profile.json for the bits that were chosen, as
`mpsearch solve --ram` does, so that neither the model nor torch is needed.
"""

from mpsearch.errors import InputError
from mpsearch.gating.evidence import Evidence
from mpsearch.tables.provenance import LIFETIMES

NOTE = (
    "RAM is the static memory of the C export, with 8 bits for what is stored between layers "
    "(`mpsearch apply --wide 8`); the stack comes on top"
)


def ram_of(evidence: Evidence, target: str | None = None) -> int:
    """Bytes of all tensors of one inference. target: the processor whose kernels are counted.

    Raises InputError without an assignment, for a table without lifetimes of tensors or a network
    without integer form, for bits of other layers, and for an unknown target.
    """
    from mpsearch.exporters.c.targets import find_target
    from mpsearch.fitting.memory import Planned
    from mpsearch.integer.template import template_from_json

    assignment, table = evidence.assignment, evidence.table
    if assignment is None or table is None:
        raise InputError(
            "RAM is planned from an assignment and the table of its network; give them with "
            "--assignment and --profile"
        )
    template = template_from_json(table.provenance.get(LIFETIMES), table.source)
    planned = Planned.of(template, find_target(target).family)
    missing = [name for name in planned.layers if name not in assignment.layers]
    if missing:
        raise InputError(
            f"the assignment has no choice for layer {missing[0]!r} of {table.source}; name the "
            "table that it was solved from with --profile"
        )
    named = [choice for choice in assignment.layers.values() if choice.label]
    if named:
        raise InputError(
            f"the assignment has {named[0]}, a format of another tool, which the C export does not "
            "have; leave out --max-ram"
        )
    return planned.lives(assignment.layers).peak_bytes
