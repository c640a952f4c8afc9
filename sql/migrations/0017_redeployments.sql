-- What a job that is replaced needs to come back, should its successor not start: who replaced it,
-- and what the fleet trained with when it was stopped (a message of training-control).
ALTER TABLE training_deployments ADD COLUMN IF NOT EXISTS replaced_by TEXT;
ALTER TABLE training_deployments ADD COLUMN IF NOT EXISTS control JSONB;

CREATE INDEX IF NOT EXISTS training_deployments_replaced
ON training_deployments (replaced_by) WHERE replaced_by IS NOT NULL;

-- A reading takes the place of the one that the same DAG run has written before.
CREATE INDEX IF NOT EXISTS training_health_by_run ON training_health (dag_run_id);
