"""Bundled reference networks and their data."""
