DROP INDEX IF EXISTS outbox_broadcast;

DROP INDEX IF EXISTS model_evaluations_by_device;

DROP INDEX IF EXISTS model_feedback_by_device;

DROP TABLE IF EXISTS device_status;
