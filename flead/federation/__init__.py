"""Aggregation of local updates into global models."""
