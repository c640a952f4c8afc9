-- Failures with a restart in the health gate's window.
SELECT
    coalesce(
        (
            SELECT restarts
            FROM training_health
            WHERE created_at >= now() - make_interval(secs => %(fresh_seconds)s)
            ORDER BY created_at DESC
            LIMIT 1
        ),
        0
    )::DOUBLE PRECISION AS value;
