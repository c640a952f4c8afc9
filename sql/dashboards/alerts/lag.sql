-- Seconds that rows wait beyond %(intervals)s intervals of checkpoints, as rows of any job do.
SELECT
    coalesce(
        (
            SELECT lag_seconds - %(intervals)s * coalesce(checkpoint_interval_seconds, 0)
            FROM training_health
            WHERE created_at >= now() - make_interval(secs => %(fresh_seconds)s)
            ORDER BY created_at DESC
            LIMIT 1
        ),
        0
    )::DOUBLE PRECISION AS value;
