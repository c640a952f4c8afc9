-- What the devices of the newest round said of themselves.
SELECT
    local_models.training_status,
    count(DISTINCT local_models.device_id) AS devices
FROM local_models
WHERE
    local_models.aggregation_round = (
        SELECT max(aggregation_rounds.round) FROM aggregation_rounds
    )
GROUP BY local_models.training_status
ORDER BY local_models.training_status;
