SELECT
    revision,
    parent_revision,
    status,
    reason,
    model_version,
    hyperparameters::TEXT AS hyperparameters,
    decided_by,
    created_at,
    decided_at,
    settled_at
FROM tuning_decisions
WHERE
    created_at BETWEEN %(time_from)s AND %(time_to)s
    OR settled_at IS NULL
ORDER BY revision DESC
LIMIT 200;
