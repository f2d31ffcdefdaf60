"""What each model minimises, step by step."""
