"""A measured answer in words: what was measured, what was not, and how sure it is."""

from mpsearch.evaluation.evaluation import Evaluation
from mpsearch.measured.answer import MeasuredAnswer
from mpsearch.pareto.front import Front
from mpsearch.statistics import paired_drop


def describe(answer: MeasuredAnswer, front: Front) -> list[str]:
    """The lines under an assignment, or instead of one where none meets the target."""
    row, found = answer.row, answer.search
    lines = [
        f"{'measured' if answer.point is not None else 'best measured'}: "
        f"{_accuracy(row)} on {row.n:,} samples of {answer.data.name}; asked: {answer.target}",
        f"  {_against(row, answer.reference)}",
    ]
    if answer.point is not None:
        sure = "holds" if answer.lower_end_holds else "does not hold"
        lines.append(f"  at the unfavourable end of the 95 % interval it {sure}")
    if not answer.held_out:
        lines.append("  the data also set the ranges of the activations: not unseen data")
    lines.append(_claim(answer))
    lines.append(f"  {_candidates(answer, front)}")
    lines.append(
        f"  {len(found.held):,} measured, {answer.stopped:,} of them stopped when they could no "
        f"longer hold: {answer.passes:,} of {len(found.held) * row.n:,} samples run, "
        f"{answer.seconds:.1f} s"
    )
    if answer.point is None:
        return lines
    if answer.confirmed is not None:
        name, fresh, reference = answer.confirmed
        holds = "holds" if answer.holds_on(fresh, reference) else "does NOT hold"
        lines.append(f"confirmed: {_accuracy(fresh)} on {fresh.n:,} samples of {name}: {holds}")
        lines.append(f"  {_against(fresh, reference)}")
    else:
        low, high = (100 * end for end in answer.interval_of_all)
        lines += [
            f"  it was chosen on these samples, which favours it: [{low:.2f}, {high:.2f}] holds "
            "for all candidates at once;",
            "  --confirm-data measures it on samples that took no part",
        ]
    return lines


def _accuracy(row: Evaluation) -> str:
    low, high = row.accuracy_interval
    return f"accuracy {100 * row.accuracy:.2f} % [{100 * low:.2f}, {100 * high:.2f}]"


def _against(row: Evaluation, reference: Evaluation) -> str:
    drop, (low, high) = paired_drop(reference.correct, row.correct)
    return (
        f"FP32 {100 * reference.accuracy:.2f} %; points lost {100 * drop:+.2f} "
        f"[{100 * low:+.2f}, {100 * high:+.2f}], on the same samples"
    )


def _claim(answer: MeasuredAnswer) -> str:
    """What is said of the other candidates: no more than was measured."""
    found = answer.search
    total = f"{found.candidates:,} candidates"
    if answer.point is None:
        if found.unmeasured == 0:
            return f"none of the {total} holds: all were measured"
        return (
            f"none that was measured holds: {found.failed:,} of {total}; "
            f"{found.unmeasured:,} were not measured (--measure allows more, or all)"
        )
    smaller = found.failed + found.unmeasured
    if found.unmeasured == 0:
        return (
            f"smallest of {total} that holds: the {smaller:,} smaller ones were measured and fail"
        )
    return (
        f"smallest of {total} that was measured to hold: of {smaller:,} smaller ones "
        f"{found.failed:,} were measured and fail, {found.unmeasured:,} were not measured"
    )


def _candidates(answer: MeasuredAnswer, front: Front) -> str:
    kind = "exact front" if front.exact else "front, which is not exact"
    if answer.candidates == len(front):
        return f"candidates: all points of the {kind} of Ω against {front.resource}"
    return (
        f"candidates: {answer.candidates:,} of the {len(front):,} points of the {kind} of Ω "
        f"against {front.resource}; any other is at most {100 * answer.tolerance:g} % smaller "
        "than one of them"
    )
