"""The whole loop in one process, without servers: the same code as the running system."""
