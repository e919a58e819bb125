"""Recipes: an assignment as the configuration file of another tool, in that tool's own bytes."""
