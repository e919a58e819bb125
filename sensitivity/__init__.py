"""Metrics that score a layer's choices, one file each."""
