"""What Airflow imports: operators, hooks, triggers."""
