"""Assignments that fit a device: their memory planned, limits from it, cuts where those fail."""
