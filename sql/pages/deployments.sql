-- What was done to the training job, the newest first.
SELECT
    id,
    deployment_id,
    attempt,
    job_id,
    kind,
    status,
    restored_from,
    savepoint_path,
    reason,
    created_at,
    updated_at,
    configuration
FROM training_deployments
ORDER BY id DESC
LIMIT %(max_rows)s
