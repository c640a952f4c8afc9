SELECT
    time_bucket(%(interval)s::INTERVAL, event_time) AS time,
    avg(error) AS mean_error,
    avg(confidence) AS mean_confidence
FROM passed_feedback
WHERE
    device_id = %(device)s
    AND event_time BETWEEN %(time_from)s AND %(time_to)s
GROUP BY 1
ORDER BY 1;
