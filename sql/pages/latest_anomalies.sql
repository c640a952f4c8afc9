-- The newest anomalies of the fleet.
SELECT
    device_id,
    event_time,
    feature,
    z_score,
    probability
FROM anomalies
ORDER BY event_time DESC
LIMIT %(max_rows)s
