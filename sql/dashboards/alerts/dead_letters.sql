-- Dead letters a minute of all topics together.
SELECT
    coalesce(
        (
            SELECT dead_letters_per_minute
            FROM training_health
            WHERE created_at >= now() - make_interval(secs => %(fresh_seconds)s)
            ORDER BY created_at DESC
            LIMIT 1
        ),
        0
    )::DOUBLE PRECISION AS value;
