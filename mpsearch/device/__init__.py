"""Measurements on the device that runs an export: latency, memory, state, energy."""
