SELECT
    event_time AS time,
    probability,
    is_anomalous::INTEGER AS called_anomalous,
    label AS labelled_anomalous
FROM device_samples
WHERE
    device_id = %(device)s
    AND slot_start BETWEEN %(time_from)s AND %(time_to)s
ORDER BY event_time;
