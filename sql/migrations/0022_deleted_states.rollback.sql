ALTER TABLE training_deployments DROP COLUMN IF EXISTS states_deleted_at;
