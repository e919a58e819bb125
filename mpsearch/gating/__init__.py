"""Conditions and evidence to verdicts, in words for people and for CI systems."""
