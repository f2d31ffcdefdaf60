"""Verbs that find what particles hold."""
