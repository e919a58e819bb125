"""The search problem, exactly: a multiple-choice knapsack, and what solves one."""
