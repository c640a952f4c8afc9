"""Whether training and stream analysis are healthy: readings, rules, and when to heal."""
