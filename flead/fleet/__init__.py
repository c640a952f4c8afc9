"""A simulated fleet of devices."""
