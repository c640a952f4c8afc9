"""A database as a fleet leaves it after days of work, for tests and for benchmarks of pages."""
