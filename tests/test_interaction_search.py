"""`solve --interactions`: G by decision, the quadratic optimum and the re-ranking, by hand."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from mpsearch.choice import Choice
from mpsearch.errors import InputError
from mpsearch.instance import Instance
from mpsearch.interaction_search import describe, gram_of, rerank, search, to_document
from mpsearch.interactions import Interactions, gram_matrix, predict
from mpsearch.k_best import k_best
from mpsearch.solving import solve
from mpsearch.table import Layer, LayerTable, Row

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


@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_quadratic_optimum_against_every_assignment(seed: int, groups: bool) -> None:
    interactions = stored(seed)
    table = table_of(interactions, groups)
    limits = {"size_bytes": 4500}
    instance = Instance.build(table, limits)
    additive = solve_choices(table, limits)
    found = search(instance, interactions, additive)
    values = []
    for picks in itertools.product(CHOICES, repeat=5):
        one = dict(zip(NAMES, picks, strict=True))
        if groups and one["conv"] != one["dense"]:
            continue
        if table.total(one, "size_bytes") <= limits["size_bytes"]:
            values.append(predict(interactions, one).quadratic)
    assert found.answer.proven
    assert found.answer.objective == pytest.approx(min(values), rel=2e-9)
    assert found.quadratic.prediction.quadratic == pytest.approx(min(values), rel=1e-6)
    assert found.additive.prediction.quadratic >= min(values) * (1 - 1e-9)
    assert found.chosen is found.quadratic
    assert table.total(found.chosen.choices, "size_bytes") <= 4500
    if groups:
        assert found.chosen.choices["conv"] == found.chosen.choices["dense"]


def solve_choices(table: LayerTable, limits: dict[str, int]) -> dict[str, Choice]:
    from mpsearch.budget import Budget

    return dict(solve(table, Budget(limits)).choices)


def test_the_gram_matrix_of_groups_is_summed() -> None:
    interactions = stored()
    instance = Instance.build(table_of(interactions, groups=True), {}, exclude={"": [CHOICES[1]]})
    gram = gram_of(interactions, instance)
    position = {cell: k for k, cell in enumerate(
        zip(interactions.layers, interactions.choices, strict=True))}  # fmt: skip
    for a, b in itertools.product(range(4), repeat=2):
        for i, j in itertools.product((0, 2), repeat=2):
            expected = sum(
                interactions.gram[position[m, CHOICES[i]], position[n, CHOICES[j]]]
                for m in instance.members[a]
                for n in instance.members[b]
            )
            assert gram[a, i, b, j] == pytest.approx(expected, rel=1e-12)
    assert not gram[:, 1].any()


@pytest.mark.parametrize("labels", [True, False])
def test_reranking_is_a_sort_by_predicted_loss_or_divergence(labels: bool) -> None:
    interactions = stored(3, labels)
    table = table_of(interactions)
    instance = Instance.build(table, {"size_bytes": 4500})
    additive = solve_choices(table, {"size_bytes": 4500})
    found = search(instance, interactions, additive, None, 12)
    ranking = found.ranking
    assert ranking is not None
    assert len(ranking.candidates) == ranking.proven == 12
    omegas = sorted(
        table.total(each, "omega")
        for picks in itertools.product(CHOICES, repeat=5)
        if table.total(each := dict(zip(NAMES, picks, strict=True)), "size_bytes") <= 4500
    )
    by_place = sorted(ranking.candidates, key=lambda one: one.place or 0)
    assert [table.total(one.choices, "omega") for one in by_place] == pytest.approx(omegas[:12])
    assert by_place[0].choices == found.additive.choices
    scores = []
    for one in ranking.candidates:
        prediction = predict(interactions, one.choices)
        expected = prediction.loss if labels else prediction.kl
        assert one.score == expected
        scores.append(one.score)
    assert scores == sorted(scores)
    assert found.chosen is ranking.winner
    assert ranking.lead_over_additive == by_place[0].score - scores[0] >= 0
    assert ranking.lead_over_second == scores[1] - scores[0]
    text = "\n".join(describe(found))
    assert ("superposed loss" if labels else "superposed KL") in text
    assert "optimal, proven" in text
    assert ("accuracy" in text) == labels
    document = json.loads(json.dumps(to_document(found)))
    assert document["ranking"]["candidates"][0]["place"] == ranking.winner.place
    assert document["quadratic"]["proven"] is True


def test_one_candidate_and_candidates_given_by_hand() -> None:
    interactions = stored(1)
    table = table_of(interactions)
    instance = Instance.build(table, {})
    best = k_best(instance, 1)
    found = search(instance, interactions, instance.by_layer(best.chosen[0]), None, 1)
    assert found.ranking is not None
    assert found.ranking.lead_over_second is None
    assert found.ranking.lead_over_additive == 0
    worst = np.zeros(5, dtype=np.int64)
    ranked = rerank(interactions, instance, [worst, best.chosen[0]])
    assert sorted(one.place or 0 for one in ranked) == [1, 2]
    assert ranked[0].score <= ranked[1].score


def test_a_deadline_in_the_past_keeps_the_start_and_says_so() -> None:
    interactions = stored(2)
    table = table_of(interactions)
    instance = Instance.build(table, {"size_bytes": 4500})
    additive = solve_choices(table, {"size_bytes": 4500})
    found = search(instance, interactions, additive, 0.0)
    assert found.answer.objective <= found.additive.prediction.quadratic * (1 + 1e-9)
    assert 0 <= found.answer.bound <= found.answer.objective
    if not found.answer.proven:
        assert "gap" in describe(found)[1]


def test_interactions_that_do_not_fit_are_refused() -> None:
    interactions = stored()
    table = table_of(interactions)
    instance = Instance.build(table, {})
    renamed = dataclasses.replace(
        interactions, layers=tuple(n.replace("head", "tail") for n in interactions.layers)
    )
    with pytest.raises(InputError, match="have no layer 'head'"):
        gram_of(renamed, instance)
    more = dataclasses.replace(
        interactions,
        layers=(*interactions.layers, "extra"),
        choices=(*interactions.choices, CHOICES[0]),
        gram=np.pad(interactions.gram, (0, 1)),
    )
    with pytest.raises(InputError, match="table has no layer 'extra'"):
        gram_of(more, instance)
    other = dataclasses.replace(
        interactions, choices=tuple(Choice(c.w_bits, 4) for c in interactions.choices)
    )
    with pytest.raises(InputError, match=r"no w2a8 for layer 'conv'.*--exclude w2a8"):
        gram_of(other, instance)
    damaged = dataclasses.replace(interactions, gram=-interactions.gram)
    with pytest.raises(InputError, match="not semidefinite"):
        gram_of(damaged, instance)
    tight = Instance.build(table, {"size_bytes": 4500})
    with pytest.raises(InputError, match="outside the limits"):
        search(tight, interactions, dict.fromkeys(NAMES, CHOICES[2]))
