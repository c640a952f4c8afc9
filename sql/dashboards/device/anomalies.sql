SELECT
    event_time AS time,
    feature AS metric,
    z_score
FROM anomalies
WHERE
    device_id = %(device)s
    AND event_time BETWEEN %(time_from)s AND %(time_to)s
ORDER BY event_time, feature;
