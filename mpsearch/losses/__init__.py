"""What a loss is on one output and on several, and how it is chosen from output and labels."""
