"""The nouns that need no torch, and their files: table, budget, solution, assignment."""
