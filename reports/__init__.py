"""Gathering facts and drawing them."""
