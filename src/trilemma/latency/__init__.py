"""The shape of a step to named terms in seconds."""
