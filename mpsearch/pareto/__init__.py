"""All budgets at once: the exact Pareto front, its file and answers from it."""
