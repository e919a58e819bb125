"""The digest that ties a device profile to the assignment that ran."""

import json
from collections.abc import Mapping

from mpsearch.choice import Choice
from mpsearch.files import digest


def network_digest(layers: Mapping[str, Choice]) -> str:
    """SHA-256 of every layer's bits, whatever their order: {"conv1": w8a8} -> `sha256:…`."""
    return digest(
        json.dumps({name: str(choice) for name, choice in layers.items()}, sort_keys=True)
    )
