-- What most updates of an interval said.
SELECT
    time_bucket(%(interval)s::INTERVAL, kafka_timestamp) AS time,
    mode() WITHIN GROUP (ORDER BY training_status) AS training_status
FROM local_models
WHERE
    device_id = %(device)s
    AND kafka_timestamp BETWEEN %(time_from)s AND %(time_to)s
GROUP BY 1
ORDER BY 1;
