"""Celery's setting `imports` names this module: a worker loads it before it forks its processes."""

from flead_airflow.preloading import preload

preload()
