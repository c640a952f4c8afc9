SELECT
    kafka_timestamp AS time,
    training_status
FROM local_models
WHERE
    device_id = %(device)s
    AND kafka_timestamp BETWEEN %(time_from)s AND %(time_to)s
ORDER BY kafka_timestamp
LIMIT 5000;
