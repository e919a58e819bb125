"""The smallest assignment whose measured accuracy meets a target, and how sure that is."""
