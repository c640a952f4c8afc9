-- Every submission, restore, savepoint and stop of the training job. Rows of the kinds submit and
-- restore are attempts, written before the job is posted; the others are what was done to one.
CREATE TABLE IF NOT EXISTS training_deployments (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    deployment_id TEXT NOT NULL,
    attempt INTEGER NOT NULL CHECK (attempt >= 1),
    job_id CHAR(32) NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('submit', 'restore', 'savepoint', 'stop')),
    status TEXT NOT NULL CHECK (
        status IN (
            'submitting', 'active', 'stopped', 'suspended', 'failed', 'superseded', 'completed'
        )
    ),
    feature_schema TEXT NOT NULL,
    configuration JSONB NOT NULL,
    restored_from TEXT,
    savepoint_path TEXT,
    reason TEXT,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
    CHECK ((kind = 'restore') = (restored_from IS NOT NULL)),
    -- Only attempts live; what was done to one is done.
    CHECK ((kind IN ('savepoint', 'stop')) = (status = 'completed'))
);

CREATE UNIQUE INDEX IF NOT EXISTS training_deployments_attempt
ON training_deployments (deployment_id, attempt) WHERE kind IN ('submit', 'restore');

CREATE UNIQUE INDEX IF NOT EXISTS training_deployments_job
ON training_deployments (job_id) WHERE kind IN ('submit', 'restore');

CREATE UNIQUE INDEX IF NOT EXISTS training_deployments_one_active
ON training_deployments ((TRUE)) WHERE status = 'active';
