SELECT
    device_id,
    count(*) AS predictions,
    avg(error) AS mean_error,
    avg(confidence) AS mean_confidence,
    max(model_version) AS newest_version
FROM passed_feedback
WHERE
    model_version = any(%(versions)s)
    AND event_time BETWEEN %(time_from)s AND %(time_to)s
GROUP BY device_id
ORDER BY mean_error DESC, device_id ASC
LIMIT 50;
