"""The Python API: what people have goes in, one library call, nouns come out."""
