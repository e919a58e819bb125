"""Keras files (`.keras`, `.h5`) as networks: config and weights are read as data, nothing runs.

`reading` opens the containers, `calls` and `layer_graph` read the config, `variables` finds every
layer's weights, `values` builds the graph in channels-first layout, `converting` walks through it,
and the other files hold the layers.
"""
