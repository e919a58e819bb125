"""Quantizing after training: ranges, rounding, repairs and what is kept of them."""
