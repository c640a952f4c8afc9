-- How many devices are known, by what they do; silent ones are far behind the newest update.
WITH newest AS (
    SELECT max(kafka_timestamp) - %(silence)s AS silent_before FROM device_status
),

known AS (
    SELECT
        CASE
            WHEN device.kafka_timestamp < newest.silent_before THEN 'silent'
            ELSE device.training_status
        END AS status,
        count(*) AS devices,
        count(*) FILTER (WHERE device.rows_labelled > 0) AS labelled
    FROM device_status AS device
    CROSS JOIN newest
    GROUP BY 1
)

SELECT
    coalesce(sum(devices), 0)::BIGINT AS devices,
    coalesce(sum(devices) FILTER (WHERE status <> 'silent'), 0)::BIGINT AS reporting,
    coalesce(sum(devices) FILTER (WHERE status = 'silent'), 0)::BIGINT AS silent,
    coalesce(sum(devices) FILTER (WHERE status = 'training'), 0)::BIGINT AS training,
    coalesce(sum(devices) FILTER (WHERE status = 'converged'), 0)::BIGINT AS converged,
    coalesce(sum(devices) FILTER (WHERE status = 'drifting'), 0)::BIGINT AS drifting,
    coalesce(sum(devices) FILTER (WHERE status = 'paused'), 0)::BIGINT AS paused,
    coalesce(sum(labelled), 0)::BIGINT AS labelled
FROM known
