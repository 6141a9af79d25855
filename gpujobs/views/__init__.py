"""Nouns to text and JSON."""
