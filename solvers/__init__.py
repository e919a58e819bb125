"""Backends that solve the multiple-choice knapsack, one file each."""
