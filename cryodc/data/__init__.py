"""Particles as tensors, the views of contrastive learning, and simulated particles."""
