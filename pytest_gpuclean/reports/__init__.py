"""Telling what came of a run: pure text, from the records."""
