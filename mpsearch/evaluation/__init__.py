"""A network measured: metrics, intervals, the file of evaluations."""
