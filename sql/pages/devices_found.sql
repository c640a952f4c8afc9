-- How many devices a search finds, of a status where one is given.
WITH newest AS (
    SELECT max(kafka_timestamp) - %(silence)s AS silent_before FROM device_status
)

SELECT count(*) AS fitting
FROM device_status AS device
CROSS JOIN newest
WHERE
    strpos(lower(device.device_id), lower(%(search)s)) > 0
    AND %(status)s IN (
        '',
        CASE
            WHEN device.kafka_timestamp < newest.silent_before THEN 'silent'
            ELSE device.training_status
        END
    )
