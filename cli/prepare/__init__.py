"""Verbs that prepare particles."""
