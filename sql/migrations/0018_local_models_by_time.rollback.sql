DROP INDEX IF EXISTS local_models_by_time;
