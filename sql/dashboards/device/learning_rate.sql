SELECT
    time_bucket(%(interval)s::INTERVAL, kafka_timestamp) AS time,
    avg(learning_rate) AS learning_rate
FROM local_models
WHERE
    device_id = %(device)s
    AND kafka_timestamp BETWEEN %(time_from)s AND %(time_to)s
GROUP BY 1
ORDER BY 1;
