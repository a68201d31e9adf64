"""Data sets as image sets on disk."""
