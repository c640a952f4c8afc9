-- Decisions about hyperparameters, the newest first.
SELECT
    revision,
    parent_revision,
    status,
    reason,
    model_version,
    hyperparameters,
    incumbent,
    trials,
    horizon_seconds,
    fleet_revision,
    evidence,
    decided_by,
    created_at,
    trial_started_at,
    decided_at,
    settled_at
FROM tuning_decisions
ORDER BY revision DESC
LIMIT %(max_rows)s
