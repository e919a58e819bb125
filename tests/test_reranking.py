"""`solve --rerank`: the K best against every assignment, and their order by prediction."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from mpsearch.errors import InputError
from mpsearch.interactions.interactions import Interactions, gram_matrix, predict
from mpsearch.interactions.k_best import describe, rerank, to_document
from mpsearch.knapsack.instance import Instance
from mpsearch.search.solving import solve
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import Layer, LayerTable, Row

CHOICES = (Choice(2, 8), Choice(4, 8), Choice(8, 8))
NAMES = ("conv", "left", "right", "dense", "head")


def stored(seed: int = 0, labels: bool = True) -> Interactions:
    """Five layers, three choices, 40 samples, 4 classes; `left` and `right` partly cancel."""
    rng = np.random.default_rng(seed)
    cells = [(name, choice) for name in NAMES for choice in CHOICES]
    logits = rng.normal(size=(40, 4)).astype(np.float32) * 2
    direction = {name: rng.normal(size=(40, 4)) for name in NAMES}
    direction["right"] = -0.8 * direction["left"] + 0.3 * direction["right"]
    changes = np.stack(
        [(direction[n] + 0.3 * rng.normal(size=(40, 4))) * 2.0 ** -(c.w_bits / 2) for n, c in cells]
    ).astype(np.float16)
    scales = np.ones(len(cells))
    return Interactions(
        layers=tuple(name for name, _ in cells),
        choices=tuple(choice for _, choice in cells),
        logits=logits,
        changes=changes,
        scales=scales,
        gram=gram_matrix(logits, changes, scales),
        labels=rng.integers(4, size=40) if labels else np.zeros(0, dtype=np.int64),
        model_digest="sha256:test",
    )


def table_of(interactions: Interactions, groups: bool = False) -> LayerTable:
    """Ω is the diagonal of G, as the metric `perturbation` has it."""
    layers = [Layer(n, group="g" if groups and n in ("conv", "dense") else "") for n in NAMES]
    weights = dict(zip(NAMES, (100, 300, 200, 500, 50), strict=True))
    rows = [
        Row(name, choice, float(interactions.gram[k, k]), 0.0,
            {"size_bytes": weights[name] * choice.w_bits})
        for k, (name, choice) in enumerate(
            zip(interactions.layers, interactions.choices, strict=True)
        )
    ]  # fmt: skip
    return LayerTable.from_rows(layers, rows)


def solve_choices(table: LayerTable, limits: dict[str, int]) -> dict[str, Choice]:
    from mpsearch.tables.budget import Budget

    return dict(solve(table, Budget(limits)).choices)


@pytest.mark.parametrize(("labels", "groups"), [(True, False), (False, False), (True, True)])
def test_reranking_is_a_sort_by_predicted_loss_or_divergence(labels: bool, groups: bool) -> None:
    interactions = stored(3, labels)
    table = table_of(interactions, groups)
    limits = {"size_bytes": 4500}
    additive = solve_choices(table, limits)
    ranking = rerank(Instance.build(table, limits), interactions, additive, 12)
    assert len(ranking.candidates) == ranking.proven == 12
    assignments = (
        dict(zip(NAMES, picks, strict=True)) for picks in itertools.product(CHOICES, repeat=5)
    )
    omegas = sorted(
        table.total(each, "omega")
        for each in assignments
        if table.total(each, "size_bytes") <= 4500 and (not groups or each["conv"] == each["dense"])
    )
    by_place = sorted(ranking.candidates, key=lambda one: one.place)
    assert [one.place for one in by_place] == list(range(1, 13))
    assert [table.total(one.choices, "omega") for one in by_place] == pytest.approx(omegas[:12])
    assert all(table.total(one.choices, "size_bytes") <= 4500 for one in by_place)
    assert ranking.additive is by_place[0]
    assert by_place[0].choices == additive
    scores = []
    for one in ranking.candidates:
        prediction = predict(interactions, one.choices)
        expected = prediction.loss if labels else prediction.kl
        assert one.score == expected
        scores.append(one.score)
    assert scores == sorted(scores)
    assert ranking.lead_over_additive == by_place[0].score - scores[0] >= 0
    assert ranking.lead_over_second == scores[1] - scores[0]
    text = "\n".join(describe(ranking))
    assert ("superposed loss" if labels else "superposed KL") in text
    assert ("accuracy" in text) == labels
    document = json.loads(json.dumps(to_document(ranking)))
    assert document["ranking"]["candidates"][0]["place"] == ranking.winner.place
    assert document["additive"]["place"] == 1


def test_one_candidate_is_the_additive_optimum() -> None:
    interactions = stored(1)
    table = table_of(interactions)
    additive = solve_choices(table, {})
    ranking = rerank(Instance.build(table, {}), interactions, additive, 1)
    assert ranking.winner.choices == additive
    assert ranking.lead_over_second is None
    assert ranking.lead_over_additive == 0


def test_a_deadline_in_the_past_keeps_the_additive_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    """With few states, so that the list is not exact at once."""
    monkeypatch.setattr("mpsearch.interactions.k_best.BEAM", 4)
    interactions = stored(2)
    table = table_of(interactions)
    limits = {"size_bytes": 4500}
    additive = solve_choices(table, limits)
    ranking = rerank(Instance.build(table, limits), interactions, additive, 12, 0.0)
    assert ranking.additive.choices == additive
    assert ranking.proven < len(ranking.candidates)
    assert f"(the first {ranking.proven} proven)" in describe(ranking)[0]


def test_interactions_that_do_not_fit_are_refused() -> None:
    interactions = stored()
    table = table_of(interactions)
    additive = solve_choices(table, {})
    renamed = dataclasses.replace(
        interactions, layers=tuple(n.replace("head", "tail") for n in interactions.layers)
    )
    more = dataclasses.replace(
        interactions,
        layers=(*interactions.layers, "extra"),
        choices=(*interactions.choices, CHOICES[0]),
    )
    other = dataclasses.replace(
        interactions, choices=tuple(Choice(c.w_bits, 4) for c in interactions.choices)
    )
    for stranger, said in (
        (renamed, "no choice for layer 'tail', which the interactions have: .* another network"),
        (more, "no choice for layer 'extra', which the interactions have: .* another network"),
        (other, "the interactions have no w8a8 for layer 'conv'; profile it again"),
    ):
        with pytest.raises(InputError, match=said):
            rerank(Instance.build(table, {}), stranger, additive, 3)
    tight = Instance.build(table, {"size_bytes": 4500})
    with pytest.raises(InputError, match="outside the limits"):
        rerank(tight, interactions, dict.fromkeys(NAMES, CHOICES[2]), 3)
