"""The smallest assignment whose measured accuracy holds, and how sure that is."""
