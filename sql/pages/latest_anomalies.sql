-- The newest anomalies of the fleet, without those of clocks that are far ahead.
SELECT
    device_id,
    event_time,
    feature,
    z_score,
    probability
FROM anomalies
WHERE event_time <= now() + INTERVAL '1 hour'
ORDER BY event_time DESC
LIMIT %(max_rows)s
