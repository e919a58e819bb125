"""Integer-only inference in numpy: what the C code computes, bit for bit (docs/integer.md)."""
