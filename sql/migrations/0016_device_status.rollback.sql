DROP INDEX IF EXISTS promotion_decisions_taken_back;

DROP INDEX IF EXISTS model_evaluations_of_run;

DROP INDEX IF EXISTS evaluation_runs_by_planning;

DROP INDEX IF EXISTS outbox_broadcast;

DROP INDEX IF EXISTS model_evaluations_by_device;

DROP INDEX IF EXISTS model_feedback_by_device;

DROP TABLE IF EXISTS device_status;
