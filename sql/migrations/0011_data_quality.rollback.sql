DROP TABLE IF EXISTS data_quality_results;

DROP INDEX IF EXISTS outbox_by_evaluation;

DROP INDEX IF EXISTS outbox_holding;

ALTER TABLE IF EXISTS outbox DROP COLUMN IF EXISTS is_quarantined;

CREATE INDEX IF NOT EXISTS outbox_held ON outbox (topic, key, id) WHERE state = 'held';

ALTER TABLE IF EXISTS evaluation_runs DROP COLUMN IF EXISTS quality_checked_at;

ALTER TABLE IF EXISTS evaluation_runs DROP COLUMN IF EXISTS quality_status;
