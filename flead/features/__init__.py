"""From raw messages to the inputs of a model."""
