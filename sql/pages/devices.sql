-- One page of the devices that fit, in the order that is asked for; worst first is the drifting
-- ones, then by log loss. The table is read whole: that is faster than an index for each order
-- would make its writing slow.
WITH newest AS (
    SELECT max(kafka_timestamp) AS kafka_timestamp FROM device_status
),

known AS (
    SELECT
        device.device_id,
        device.kafka_timestamp,
        device.model_version,
        device.base_version,
        device.learning_rate,
        device.trial,
        device.rows_labelled,
        device.accuracy,
        device.log_loss,
        device.global_accuracy,
        device.global_log_loss,
        CASE
            WHEN device.kafka_timestamp < newest.kafka_timestamp - %(silence)s THEN 'silent'
            ELSE device.training_status
        END AS status
    FROM device_status AS device
    CROSS JOIN newest
    WHERE strpos(lower(device.device_id), lower(%(search)s)) > 0
),

listed AS (
    SELECT
        *, -- noqa: AM04
        count(*) OVER () AS fitting,
        CASE %(sort)s
            WHEN 'worst' THEN log_loss + CASE WHEN status = 'drifting' THEN 1e6 ELSE 0 END
            WHEN 'log_loss' THEN log_loss
            WHEN 'accuracy' THEN accuracy
            WHEN 'global_accuracy' THEN global_accuracy
            WHEN 'learning_rate' THEN learning_rate
            WHEN 'seen' THEN extract(EPOCH FROM kafka_timestamp)
        END * %(direction)s AS place
    FROM known
    WHERE %(status)s = '' OR status = %(status)s
    ORDER BY
        place ASC NULLS LAST,
        CASE WHEN %(sort)s = 'device' AND %(direction)s < 0 THEN device_id END DESC,
        device_id ASC
    LIMIT %(max_rows)s OFFSET %(first_row)s
)

SELECT
    listed.*,
    recent.anomalies
FROM listed
LEFT JOIN LATERAL (
    SELECT count(*) AS anomalies
    FROM anomalies AS found
    WHERE
        found.device_id = listed.device_id
        AND found.event_time > (
            SELECT max(latest.event_time) FROM anomalies AS latest
        ) - INTERVAL '1 hour'
) AS recent ON TRUE
ORDER BY
    listed.place ASC NULLS LAST,
    CASE WHEN %(sort)s = 'device' AND %(direction)s < 0 THEN listed.device_id END DESC,
    listed.device_id ASC
