-- A device's rows, one of each slot: its first sample there, as it was measured.
SELECT DISTINCT ON (time_bucket(%(slot)s, slot_start))
    event_time,
    features,
    label,
    probability,
    is_anomalous,
    model_version,
    kafka_partition,
    kafka_offset
FROM device_samples
WHERE device_id = %(device)s AND slot_start > %(start)s AND slot_start <= %(end)s
ORDER BY time_bucket(%(slot)s, slot_start) ASC, slot_start ASC
