"""The C export as a library of an ecosystem: its layout, its manifests, an example."""
