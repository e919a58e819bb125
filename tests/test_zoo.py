"""A network of each family of `benchmarks/zoo.py` goes in and out again as docs/zoo.md says."""

from pathlib import Path

import pytest

for extra in ("onnx", "onnxruntime", "ai_edge_litert"):
    pytest.importorskip(extra)

import zoo  # noqa: E402

PAGE = Path(__file__).parent.parent / "docs" / "zoo.md"
# The quickest of each: about a second.
CHOSEN = (
    "squeezenet", "group_norm", "spectral_norm", "ds_cnn", "voice_activity", "poolformer",
    "text_cnn", "fomo", "denoiser", "dense_autoencoder", "tabular", "unit_embedding",
)  # fmt: skip
NETWORKS = {network.name: network for network in zoo.networks()}


def _published() -> dict[str, list[str]]:
    """The rows of the page's table by network: loads, then `zoo.COLUMNS`."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    return {row[1]: row[2:] for row in rows if row[1] in NETWORKS}


def test_the_page_has_every_network_and_the_test_every_family() -> None:
    assert list(_published()) == list(NETWORKS)
    assert {NETWORKS[name].family for name in CHOSEN} == {n.family for n in NETWORKS.values()}


@pytest.mark.parametrize("name", CHOSEN)
def test_what_the_page_says_of_a_network_is_so(name: str, tmp_path: Path) -> None:
    row = zoo.tried(NETWORKS[name], tmp_path, compile_c=False)
    found = [row.cells[column] for column in ("loads", *zoo.COLUMNS)]
    assert found == _published()[name], row.reasons
