"""Whose memory it is, and whether it is a leak: numbers alone."""
