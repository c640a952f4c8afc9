DROP INDEX IF EXISTS training_health_by_run;

DROP INDEX IF EXISTS training_deployments_replaced;

ALTER TABLE training_deployments DROP COLUMN IF EXISTS control;
ALTER TABLE training_deployments DROP COLUMN IF EXISTS replaced_by;
