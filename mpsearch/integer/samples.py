"""The graph that integers are made of: one operator for each result, samples in dimension 0."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from mpsearch.graph.attention import products_apart
from mpsearch.graph.batch_first import batch_first
from mpsearch.quantization.quantized import QuantizedNetwork, assemble


def of_one_sample(quantized: QuantizedNetwork, inputs: Sequence[torch.Tensor]) -> QuantizedNetwork:
    """The same network, computed as integers are: attention as products and sums, and tensors
    whose rows are what a sample has alone. `quantized` itself where it is that already."""
    given = quantized.source.graph
    graph = batch_first(products_apart(given, inputs), inputs)
    if graph is given:
        return quantized
    return assemble(replace(quantized.source, graph=graph), quantized.layers, quantized.stored)
