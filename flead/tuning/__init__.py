"""Tuning of the fleet's hyperparameters: what the DAG's tasks call; each step may run twice."""
