SELECT
    time_bucket(%(interval)s::INTERVAL, kafka_timestamp) AS time,
    count(*) FILTER (WHERE status = 'accepted') AS accepted,
    count(*) FILTER (WHERE status = 'rejected') AS rejected,
    count(*) FILTER (WHERE status IN ('pending', 'superseded')) AS not_averaged
FROM local_models
WHERE
    device_id = %(device)s
    AND kafka_timestamp BETWEEN %(time_from)s AND %(time_to)s
GROUP BY 1
ORDER BY 1;
