-- One row in fifteen seconds of each device is kept.
SELECT
    sample.event_time AS time,
    feature.key AS metric,
    feature.value::DOUBLE PRECISION AS value
FROM device_samples AS sample
CROSS JOIN LATERAL jsonb_each_text(sample.features) AS feature
WHERE
    sample.device_id = %(device)s
    AND sample.slot_start BETWEEN %(time_from)s AND %(time_to)s
    AND feature.value IS NOT NULL
ORDER BY sample.event_time, feature.key;
