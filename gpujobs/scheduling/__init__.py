"""Decisions: pure functions over nouns. No I/O, no clock, no environment."""
