"""Judging a machine: pure functions from what was found to what it means and what to do."""
