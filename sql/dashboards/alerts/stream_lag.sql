-- Seconds that rows wait for the stream analysis beyond %(intervals)s of its triggers.
SELECT
    coalesce(
        (
            SELECT stream_lag_seconds - %(intervals)s * coalesce(stream_trigger_seconds, 0)
            FROM training_health
            WHERE created_at >= now() - make_interval(secs => %(fresh_seconds)s)
            ORDER BY created_at DESC
            LIMIT 1
        ),
        0
    )::DOUBLE PRECISION AS value;
