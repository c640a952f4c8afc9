-- By the newest update of each device that a round has read.
SELECT
    training_status,
    count(*) AS devices
FROM device_status
WHERE kafka_timestamp BETWEEN %(time_from)s AND %(time_to)s
GROUP BY training_status
ORDER BY training_status;
