SELECT
    event_time,
    device_id,
    feature,
    value,
    z_score,
    probability,
    label, -- noqa: RF04
    model_version
FROM anomalies
WHERE event_time BETWEEN %(time_from)s AND %(time_to)s
ORDER BY event_time DESC
LIMIT 200;
