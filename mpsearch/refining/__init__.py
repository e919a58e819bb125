"""Assignments of one budget, measured and exchanged until none is better."""
