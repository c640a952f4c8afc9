"""The shared state in PostgreSQL or TimescaleDB."""
