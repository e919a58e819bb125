"""Constants that attention is called with, as a file of Keras may write them: what is refused."""

from typing import Any

import pytest

from mpsearch.errors import InputError
from mpsearch.importers.keras import attention
from mpsearch.importers.keras.settings import Building, Emitter, Settings

SETTINGS = Settings("att (MultiHeadAttention)", {"num_heads": 1, "key_dim": 2})


def constant(value: Any) -> dict[str, Any]:
    return {"class_name": "__numpy__", "config": {"value": value, "dtype": "bool"}}


@pytest.mark.parametrize(
    "given",
    [True, constant([[True], [True, False]]), constant([10**400]), constant(["a"]), constant(1),
     {"class_name": "__keras_tensor__", "config": {"value": [1]}}, {"config": 3}],
)  # fmt: skip
def test_what_is_no_constant_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match="an attention_mask that is no constant"):
        attention.called_mask(SETTINGS, given)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[True, True]], r"attention_mask of shape \[1, 2\]; expected \[1, 2, 2\]"),
        ([[[False, False], [True, True]]], "a step that sees none"),
        ([[False, True], [True, True]], "a step that sees none"),  # beside the causal mask
    ],
)
def test_a_mask_that_does_not_fit_is_refused(value: Any, message: str) -> None:
    mask = attention.called_mask(SETTINGS, constant(value))
    layer = Building(SETTINGS, {}, "att", "MultiHeadAttention", 1, Emitter(3), True, mask)
    with pytest.raises(InputError, match=message):
        attention._mask(layer, mask, 2, 2)
