-- One page of the devices that fit, in the order that is asked for; worst first is the drifting
-- ones, then by log loss. The table is narrow and read whole: an index for each order would make
-- every round write more than these reads cost.
WITH newest AS (
    SELECT max(kafka_timestamp) - %(silence)s AS silent_before FROM device_status
),

known AS (
    SELECT
        device.device_id,
        device.log_loss,
        device.accuracy,
        device.global_accuracy,
        device.learning_rate,
        device.kafka_timestamp,
        CASE
            WHEN device.kafka_timestamp < newest.silent_before THEN 'silent'
            ELSE device.training_status
        END AS status
    FROM device_status AS device
    CROSS JOIN newest
    WHERE %(search)s = '' OR strpos(lower(device.device_id), lower(%(search)s)) > 0
),

listed AS (
    -- No more than what is sorted by: of the rest, the page's own rows are enough.
    SELECT
        device_id,
        status,
        CASE %(sort)s
            WHEN 'worst'
                -- One that drifts without labels has no loss, and is among the first all the same.
                THEN
                    coalesce(log_loss, CASE WHEN status = 'drifting' THEN 0 END)
                    + 1e6 * (status = 'drifting')::INTEGER
            WHEN 'log_loss' THEN log_loss
            WHEN 'accuracy' THEN accuracy
            WHEN 'global_accuracy' THEN global_accuracy
            WHEN 'learning_rate' THEN learning_rate
            WHEN 'seen' THEN extract(EPOCH FROM kafka_timestamp)::DOUBLE PRECISION
        END * %(direction)s AS place
    FROM known
    WHERE %(status)s IN ('', status)
    ORDER BY
        place ASC NULLS LAST,
        CASE WHEN %(sort)s = 'device' AND %(direction)s < 0 THEN device_id END DESC,
        device_id ASC
    LIMIT %(max_rows)s OFFSET %(first_row)s
)

SELECT
    device.device_id,
    device.kafka_timestamp,
    device.learning_rate,
    device.trial,
    device.accuracy,
    device.log_loss,
    device.global_accuracy,
    recent.anomalies,
    listed.status
FROM listed
INNER JOIN device_status AS device ON listed.device_id = device.device_id
LEFT JOIN LATERAL (
    SELECT count(*) AS anomalies
    FROM anomalies AS found
    WHERE
        found.device_id = listed.device_id
        AND found.event_time > (
            -- No later than now: one clock that is ahead is not the fleet's.
            SELECT least(max(latest.event_time), now()) FROM anomalies AS latest
        ) - INTERVAL '1 hour'
) AS recent ON TRUE
ORDER BY
    listed.place ASC NULLS LAST,
    CASE WHEN %(sort)s = 'device' AND %(direction)s < 0 THEN listed.device_id END DESC,
    listed.device_id ASC
