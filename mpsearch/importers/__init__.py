"""Model files of every kind, read without running what is in them."""
