"""Aggregation rounds: what the DAG's tasks and the CLI call; each function may run twice."""
