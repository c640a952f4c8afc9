ALTER TABLE training_deployments DROP COLUMN IF EXISTS posted_at;
