"""Terms between layers: their matrix, the K best assignments, re-ranking."""
