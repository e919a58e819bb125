"""State that a file keeps between calls, as inputs and outputs of its network.

A streaming network reads a variable, computes with it and the next piece of sound, and assigns it
anew. One call is a function of both: what is read becomes an input, what is assigned an output.
"""

from dataclasses import replace

from mpsearch.errors import InputError
from mpsearch.importers.litert.reading import LiteRtGraph, Operator

VARIABLES = ("CALL_ONCE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE")
_NEXT = "_next"


def open_states(graph: LiteRtGraph) -> LiteRtGraph:
    """The graph without variables: state `s` is an input, and `s_next` an output if it changes.

    Raises InputError for a variable that no handle of the graph names.
    """
    if not any(operator.name in VARIABLES for operator in graph.operators):
        return graph
    handles: dict[int, str] = {}
    current: dict[str, int] = {}
    same: dict[int, int] = {}
    inputs: dict[str, int] = {}
    operators: list[Operator] = []
    for operator in graph.operators:
        given = tuple(n if n is None else same.get(n, n) for n in operator.inputs)
        if operator.name == "VAR_HANDLE":
            handles[_only(operator.outputs, operator)] = _name(graph, operator)
        elif operator.name == "READ_VARIABLE":
            variable, output = _variable(operator, handles), _only(operator.outputs, operator)
            if variable in current:
                same[output] = current[variable]
            else:
                current[variable] = inputs[variable] = output
        elif operator.name == "ASSIGN_VARIABLE":
            value = given[1] if len(given) > 1 else None
            if value is None:
                raise InputError("damaged LiteRT file: ASSIGN_VARIABLE without a value")
            current[_variable(operator, handles)] = value
        elif operator.name != "CALL_ONCE":  # which fills variables before the first call
            operators.append(replace(operator, inputs=given))
    taken = {name for name, _ in (*graph.inputs, *graph.outputs)}
    names = {variable: _fresh(variable, taken) for variable in inputs}
    changed = [variable for variable in inputs if current[variable] != inputs[variable]]
    outputs = tuple((_fresh(names[v] + _NEXT, taken), current[v]) for v in changed)
    note = (
        f"the state that it keeps between calls is now {len(inputs)} inputs "
        f"({', '.join(list(names.values())[:8])}), its next value the outputs that end in {_NEXT}; "
        "the file starts it itself, as a rule with zeros"
    )
    return replace(
        graph,
        operators=tuple(operators),
        inputs=(*graph.inputs, *((names[v], number) for v, number in inputs.items())),
        outputs=(*((name, same.get(n, n)) for name, n in graph.outputs), *outputs),
        notes=(*graph.notes, *((note,) if inputs else ())),
    )


def _name(graph: LiteRtGraph, operator: Operator) -> str:
    """What handles of one variable have in common."""
    shared = operator.options.get("sharedName") or b""
    text = shared.decode(errors="replace") if isinstance(shared, bytes) else str(shared)
    return (text or graph.tensors[operator.outputs[0]].name or f"state{operator.outputs[0]}")[:80]


def _variable(operator: Operator, handles: dict[int, str]) -> str:
    handle = operator.inputs[0] if operator.inputs else None
    if handle is None or handle not in handles:
        raise InputError(f"damaged LiteRT file: {operator.name} of a variable without a handle")
    return handles[handle]


def _only(numbers: tuple[int, ...], operator: Operator) -> int:
    if len(numbers) != 1:
        raise InputError(f"damaged LiteRT file: {operator.name} with {len(numbers)} outputs")
    return numbers[0]


def _fresh(wanted: str, taken: set[str]) -> str:
    name = wanted
    while name in taken:
        name += "_"
    taken.add(name)
    return name
