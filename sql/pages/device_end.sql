-- The event time at which a device's stream ends; by slot, for which there is an index.
SELECT greatest(
    (
        SELECT event_time
        FROM device_samples
        WHERE device_id = %(device)s
        ORDER BY slot_start DESC, event_time DESC
        LIMIT 1
    ),
    (
        SELECT max(event_time)
        FROM anomalies
        WHERE device_id = %(device)s
    )
) AS event_time
