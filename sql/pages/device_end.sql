-- The event time at which a device's stream ends.
SELECT greatest(
    (
        SELECT max(slot_start)
        FROM device_samples
        WHERE device_id = %(device)s
    ),
    (
        SELECT max(event_time)
        FROM anomalies
        WHERE device_id = %(device)s
    )
) AS event_time
