-- 1 when the newest reading says that a person is needed.
SELECT
    coalesce(
        (
            SELECT (verdict = 'exhausted')::INTEGER
            FROM training_health
            WHERE created_at >= now() - make_interval(secs => %(fresh_seconds)s)
            ORDER BY created_at DESC
            LIMIT 1
        ),
        0
    )::DOUBLE PRECISION AS value;
