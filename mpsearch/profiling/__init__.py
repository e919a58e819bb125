"""A metric run over a network: the table, and what stays in floating point."""
