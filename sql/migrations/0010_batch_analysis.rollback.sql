DROP INDEX IF EXISTS local_models_by_input;

DROP TABLE IF EXISTS batch_analysis_results;

DROP TABLE IF EXISTS analysis_days;
