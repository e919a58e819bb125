"""Every way data can be wrong is one clear error that names the source and the array."""

from pathlib import Path

import networks
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mpsearch.data import Data, bind, read_arrays
from mpsearch.errors import InputError
from mpsearch.graph.arrays import Arrays
from mpsearch.graph.network import Network


@pytest.fixture(scope="module")
def network() -> Network:
    model, inputs, _ = networks.build("two-inputs")
    return Network.from_module(model, inputs)


def _good(n: int = 5) -> dict[str, torch.Tensor]:
    return {"x0": torch.randn(n, 1, 6, 8), "x1": torch.randn(n, 7), "y": torch.arange(n) % 4}


def test_arrays_bind_by_position_or_by_the_models_input_names(network: Network) -> None:
    good = _good()
    renamed = {"vector": good["x1"], "y": good["y"], "sound": good["x0"]}
    first, second = bind(Arrays("a", good), network), bind(Arrays("b", renamed), network)
    assert first.digest == second.digest
    assert [tuple(x.shape) for x in second.inputs] == [(5, 1, 6, 8), (5, 7)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x1": None}, r"no array 'x1' \(vector\)"),
        ({"extra": torch.zeros(5)}, "unknown array 'extra'"),
        ({"x0": torch.randn(5, 1, 8, 6)}, r"array x0 .* has shape \(5, 1, 8, 6\); expected"),
        ({"x0": torch.randn(4, 1, 6, 8)}, "array x1 has 5 samples and x0 has 4"),
        ({"x0": torch.zeros(0, 1, 6, 8)}, "array x0 .* has no samples"),
        ({"x1": torch.full((5, 7), float("nan"))}, r"array x1 .* has NaN or infinity in sample 0"),
        ({"x1": torch.full((5, 7), float("inf"))}, "NaN or infinity"),
        ({"y": torch.tensor([0, 1, 2, 3, 4])}, "labels from 0 to 4; expected 0 to 3"),
        ({"y": torch.tensor([0, 1, 2, 3, -1])}, "labels from -1 to 3"),
        ({"y": torch.tensor([0.5, 1, 2, 3, 1])}, "array y has fractions"),
        ({"y": torch.zeros(5, 3)}, r"array y has shape \(5, 3\)"),
        ({"y": torch.zeros(4)}, r"array y has shape \(4,\); expected \(5,\)"),
    ],
)
def test_arrays_that_do_not_fit_are_named(
    network: Network, change: dict[str, torch.Tensor | None], message: str
) -> None:
    arrays = {k: v for k, v in {**_good(), **change}.items() if v is not None}
    with pytest.raises(InputError, match=f"^source: .*{message}"):
        bind(Arrays("source", arrays), network)


def test_files_give_the_arrays_that_were_written(tmp_path: Path) -> None:
    arrays = {"x0": np.arange(6, dtype=np.uint8).reshape(2, 3), "y": np.array([0, 1])}
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    save_file({k: torch.from_numpy(v) for k, v in arrays.items()}, tmp_path / "b.safetensors")
    for name in ("a.npz", "b.safetensors"):
        read = read_arrays(str(tmp_path / name)).tensors
        assert {key: value.tolist() for key, value in read.items()} == {
            key: value.tolist() for key, value in arrays.items()
        }


def _object_npz(path: Path) -> None:
    np.savez(path, x0=np.array([{"a": 1}], dtype=object))


def _text_npz(path: Path) -> None:
    np.savez(path, x0=np.array(["a", "b"]))


def _truncated(path: Path) -> None:
    np.savez(path, x0=np.zeros(1000))
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize("make", [_object_npz, _text_npz, _truncated, Path.touch])
def test_files_without_plain_arrays_are_refused(make: object, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    make(path)  # type: ignore[operator]
    with pytest.raises(InputError, match=r"data\.npz"):
        read_arrays(str(path))


def batches() -> object:
    """A data function: yields (x0, y)."""
    for start in range(0, 6, 4):
        x = torch.arange(start, min(start + 4, 6)).float()[:, None]
        yield x, x[:, 0].long()


def dictionaries() -> object:
    yield {"image": torch.zeros(2, 3)}


def nothing() -> object:
    return []


def changing() -> object:
    yield {"x0": torch.zeros(2)}
    yield {"x1": torch.zeros(2)}


NOT_A_FUNCTION = 3


def test_a_function_yields_batches() -> None:
    arrays = read_arrays("test_data:batches").tensors
    assert arrays["x0"].flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert arrays["y"].tolist() == [0, 1, 2, 3, 4, 5]
    assert list(read_arrays("test_data:dictionaries").tensors) == ["image"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("test_data:nothing", "yields no batches"),
        ("test_data:changing", "different arrays"),
        ("test_data:NOT_A_FUNCTION", "expected a function"),
        ("test_data:missing", "cannot import"),
        ("no_such_module:f", "cannot import"),
        ("no-such-file.npz", "no data 'no-such-file.npz'; expected an existing"),
        ("generated-battlefield", "without a split"),
        ("generated-battlefield:nothing", "no split 'nothing'"),
    ],
)
def test_sources_that_give_no_data_are_named(source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_arrays(source)


def test_take_draws_without_replacement_and_by_seed() -> None:
    data = Data("d", (torch.arange(50).float(),), torch.arange(50))
    first, again, other = data.take(20, 1), data.take(20, 1), data.take(20, 2)
    assert first.digest == again.digest != other.digest
    assert first.labels is not None
    assert len(set(first.labels.tolist())) == 20
    assert data.take(50, 0) is data
