-- When the savepoint and the retained checkpoints of an attempt were deleted: once is enough.
ALTER TABLE training_deployments
ADD COLUMN IF NOT EXISTS states_deleted_at TIMESTAMP WITH TIME ZONE;
