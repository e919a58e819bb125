"""Any model as one graph of aten operators: export, layers, shapes, the file format."""
