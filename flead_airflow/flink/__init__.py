"""Run Flink jobs on a session cluster from Airflow, over the REST API."""
