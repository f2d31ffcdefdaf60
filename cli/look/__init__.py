"""Verbs that show a run."""
