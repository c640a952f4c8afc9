-- How many devices are known, by what they do; silent ones are far behind the newest update.
SELECT
    count(*) AS devices,
    count(*) FILTER (WHERE NOT is_silent) AS reporting,
    count(*) FILTER (WHERE is_silent) AS silent_devices,
    count(*) FILTER (WHERE NOT is_silent AND training_status = 'training') AS training,
    count(*) FILTER (WHERE NOT is_silent AND training_status = 'converged') AS converged,
    count(*) FILTER (WHERE NOT is_silent AND training_status = 'drifting') AS drifting,
    count(*) FILTER (WHERE NOT is_silent AND training_status = 'paused') AS paused,
    count(*) FILTER (WHERE rows_labelled > 0) AS labelled
FROM (
    SELECT
        kafka_timestamp,
        training_status,
        rows_labelled,
        kafka_timestamp < max(kafka_timestamp) OVER () - %(silence)s AS is_silent
    FROM device_status
) AS known
