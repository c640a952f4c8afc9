-- Seconds since the newest reading, 0 while no training should run.
SELECT
    coalesce(
        (
            SELECT extract(EPOCH FROM now() - greatest(max(reading.created_at), active.updated_at))
            FROM training_deployments AS active
            LEFT JOIN training_health AS reading ON TRUE
            WHERE active.status = 'active'
            GROUP BY active.updated_at
        ),
        0
    )::DOUBLE PRECISION AS value;
