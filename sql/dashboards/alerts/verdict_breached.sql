-- How many rules the newest reading breaks.
SELECT
    coalesce(
        (
            SELECT jsonb_array_length(reasons)
            FROM training_health
            WHERE created_at >= now() - make_interval(secs => %(fresh_seconds)s)
            ORDER BY created_at DESC
            LIMIT 1
        ),
        0
    )::DOUBLE PRECISION AS value;
