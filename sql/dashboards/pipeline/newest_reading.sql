SELECT
    verdict,
    extract(EPOCH FROM now() - created_at)::DOUBLE PRECISION AS reading_age,
    job_state,
    checkpoint_age_seconds AS checkpoint_age,
    lag_seconds AS lag,
    rows_per_second,
    updates_per_second,
    dead_letters_per_minute
FROM training_health
WHERE created_at BETWEEN %(time_from)s AND %(time_to)s
ORDER BY created_at DESC
LIMIT 1;
