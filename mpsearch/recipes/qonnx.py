"""`--for qonnx`: the network as ONNX with `Quant` nodes, for FINN and hls4ml."""

from collections.abc import Mapping

from mpsearch.errors import InputError
from mpsearch.recipes.own_formats import FLOAT, KINDS, as_packed, refused_format
from mpsearch.recipes.target import Recipe, Target, bytes_column
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import TableLayer

_BITS = (*range(2, 9), 16)


class Qonnx(Target):
    """A Quant node of the assigned bits on every weight and on what every layer reads."""

    name = "qonnx"
    description = "ONNX with Quant nodes, from --model; read by FINN, hls4ml and qonnx"
    formats = "w2 to w8, w16 or w32 with a2 to a8, a16 or a32"

    def refused(self, layer: TableLayer, choice: Choice) -> str:
        """Any bits that our own quantizer has, with a scale for each channel."""
        if why := refused_format(layer, choice, KINDS):
            return why
        if not {choice.w_bits, choice.a_bits} <= {*_BITS, FLOAT}:
            return "codes have 2 to 8 or 16 bits, or 32 for float"
        return ""

    def costs(self, layer: TableLayer, choice: Choice) -> Mapping[str, int]:
        """What an accelerator stores: packed weights, a float32 scale and a bias for each channel.

        The file itself holds real numbers, of which the Quant nodes leave as many bits.
        """
        return {bytes_column(self.name): as_packed(layer, choice)}

    def write(self, recipe: Recipe) -> bytes:
        """The ONNX file of the network that --model names: one that is quantized so already, or a
        float one with a sample, which is quantized as `mpsearch apply` does."""
        if recipe.model is None:  # before torch is loaded
            raise InputError("qonnx writes the network itself; name its file with --model")
        from mpsearch.data import bind
        from mpsearch.exporters.onnx.model import onnx_model
        from mpsearch.exporters.onnx.quant_nodes import QuantWriter
        from mpsearch.graph.arrays import Arrays
        from mpsearch.importers.kinds import QUANTIZED, detect
        from mpsearch.importers.loading import ModelSource, load_network
        from mpsearch.post_training.quantizing import apply
        from mpsearch.quantization.quantized_file import load_quantized

        path, choices = recipe.model, {name: choice for name, (_, choice) in recipe.layers.items()}
        if detect(path) == QUANTIZED:
            network = load_quantized(path)
            if network.assignment != choices:
                raise InputError(f"{path} is quantized otherwise than the assignment says")
        else:
            loaded = load_network(ModelSource(path))
            if not loaded.sample:
                raise InputError(
                    f"{path} carries no sample to calibrate on; quantize it with `mpsearch apply` "
                    "--data, and name that file with --model"
                )
            sample = Arrays(f"the sample in {path}", loaded.sample)
            data = bind(sample, loaded.network, need_labels=False)
            network = apply(loaded.network, choices, data, keep_sample=False)
        return bytes(onnx_model(network, QuantWriter).SerializeToString())


TARGET = Qonnx()
