"""The doors: one file per group of commands."""
