"""Why this bit width: alternatives, prices of limits, what-if."""
