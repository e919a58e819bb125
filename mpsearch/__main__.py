"""`python -m mpsearch`, for `torchrun -m mpsearch …`."""

from mpsearch.cli import main

main()
