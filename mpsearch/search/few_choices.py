"""At most k distinct choices in the whole network: the best subset of k choices, proven.

Every subset is an instance of its own with the other choices forbidden, so that every solver can
take part. A quick bound for each comes first; subsets that cannot beat the best one are never
searched.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from math import comb

import numpy as np

from mpsearch.errors import InputError
from mpsearch.knapsack.instance import Instance
from mpsearch.search.proof import Proof, guess, prove

MOST_SUBSETS = 10_000


def fewest_choices(instance: Instance, most: int, run: Callable[[Instance], Proof]) -> Proof:
    """The best assignment with at most `most` different choices; `run` proves one instance."""
    columns = np.flatnonzero(instance.allowed.any(axis=0)).tolist()
    most = min(most, len(columns))
    if comb(len(columns), most) > MOST_SUBSETS:
        raise InputError(
            f"{len(columns)} choices have {comb(len(columns), most):,} subsets of {most}; exclude "
            f"some choices: at most {MOST_SUBSETS:,} subsets are searched"
        )
    bounded = []
    complete = True
    for subset in combinations(columns, most):
        only = np.zeros(instance.allowed.shape[1], dtype=bool)
        only[list(subset)] = True
        part = replace(instance, allowed=instance.allowed & only)
        if not part.is_empty:
            quick = prove(part, guess(part), max_states=1)
            if quick.chosen is not None or not quick.complete:
                bounded.append((quick.lower, part))
    best = Proof(None, None, instance.base[0], complete)
    lowest = None
    for lower, part in sorted(bounded, key=lambda one: one[0]):
        if best.upper is not None and lower >= best.upper:
            break
        proof = run(part)
        complete &= proof.complete
        lowest = proof.lower if lowest is None else min(lowest, proof.lower)
        if proof.upper is not None and (best.upper is None or proof.upper < best.upper):
            best = proof
    if best.upper is None or lowest is None:
        return replace(best, complete=complete)
    return Proof(best.chosen, best.upper, min(lowest, best.upper), complete)
