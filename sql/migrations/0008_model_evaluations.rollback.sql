DROP VIEW IF EXISTS passed_feedback;

DROP VIEW IF EXISTS passed_evaluations;

DROP TABLE IF EXISTS model_feedback;

DROP TABLE IF EXISTS model_evaluations;

DROP TABLE IF EXISTS evaluation_runs;
