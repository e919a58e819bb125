"""A TorchScript graph, run node by node so that it can be exported."""
