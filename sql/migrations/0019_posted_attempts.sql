-- When the job of an attempt was about to be posted: one that never was has left no state.
ALTER TABLE training_deployments ADD COLUMN IF NOT EXISTS posted_at TIMESTAMP WITH TIME ZONE;

UPDATE training_deployments SET posted_at = created_at
WHERE kind IN ('submit', 'restore') AND posted_at IS NULL;
