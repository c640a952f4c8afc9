-- A device's anomalies, the newest first.
SELECT
    event_time,
    feature,
    value,
    z_score,
    features,
    probability,
    label,
    model_version,
    kafka_partition,
    kafka_offset
FROM anomalies
WHERE device_id = %(device)s AND event_time > %(start)s AND event_time <= %(end)s
ORDER BY event_time DESC
LIMIT %(max_rows)s
