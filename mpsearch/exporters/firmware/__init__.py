"""A C export as firmware of a board: startup, linker script, main, and a check of itself."""
