-- How many devices a search finds, of a status where one is given.
WITH newest AS (
    SELECT max(kafka_timestamp) - %(silence)s AS silent_before FROM device_status
)

SELECT count(*) AS fitting
FROM device_status AS device
CROSS JOIN newest
WHERE
    strpos(lower(device.device_id), lower(%(search)s)) > 0
    AND CASE %(status)s
        WHEN '' THEN TRUE
        WHEN 'silent' THEN device.kafka_timestamp < newest.silent_before
        ELSE
            device.training_status = %(status)s
            AND device.kafka_timestamp >= newest.silent_before
    END
