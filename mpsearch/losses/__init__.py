"""What a loss is on one output and on several, and which one is meant."""
