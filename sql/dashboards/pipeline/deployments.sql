SELECT
    created_at,
    kind,
    status,
    deployment_id,
    attempt,
    job_id,
    restored_from,
    savepoint_path,
    reason
FROM training_deployments
WHERE created_at BETWEEN %(time_from)s AND %(time_to)s
ORDER BY id DESC
LIMIT 100;
