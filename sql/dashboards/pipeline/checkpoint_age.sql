SELECT
    time_bucket(%(interval)s::INTERVAL, created_at) AS time,
    max(checkpoint_age_seconds) AS checkpoint,
    max(stream_batch_age_seconds) AS stream_batch
FROM training_health
WHERE created_at BETWEEN %(time_from)s AND %(time_to)s
GROUP BY 1
ORDER BY 1;
