"""Pre-flight: what a sample of the particles themselves says, against what their STAR and the options claim."""
