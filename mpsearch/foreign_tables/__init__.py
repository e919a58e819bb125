"""Tables that other tools measured, read as layer tables: nothing in them runs."""
