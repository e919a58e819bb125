"""Keras files (`.keras`, `.h5`) as networks: config and weights are read as data, nothing runs.

`reading` opens the containers, `layer_graph` reads the config, `variables` finds every layer's
weights, `values` builds the graph in channels-first layout, and the other files hold the layers.
"""
