"""Asking solvers and believing nothing: solutions, proofs, feasible limits."""
