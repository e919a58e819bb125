"""Two networks beside each other: their layers, what they take, what they reach."""
