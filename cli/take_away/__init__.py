"""Verbs that take results out of a run."""
