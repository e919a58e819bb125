"""The networks of `benchmarks/zoo.py`: built here with random weights."""
