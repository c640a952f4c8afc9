-- Readings of the hours before the newest one, oldest first, one of each slot at most.
SELECT DISTINCT ON (time_bucket(%(slot)s, created_at))
    created_at,
    rows_per_second,
    updates_per_second,
    lag_rows,
    lag_seconds,
    stream_lag_seconds,
    dead_letters_per_minute,
    checkpoint_age_seconds,
    back_pressure_ratio,
    verdict
FROM training_health
WHERE created_at > (SELECT max(newest.created_at) FROM training_health AS newest) - %(reach)s
ORDER BY time_bucket(%(slot)s, created_at) ASC, created_at DESC
