"""Models and their losses."""
