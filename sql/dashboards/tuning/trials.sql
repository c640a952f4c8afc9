-- Each trial against the devices that went on as before; a negative difference is better.
SELECT
    decision.revision,
    trial.tried ->> 'trial' AS trial,
    (trial.tried ->> 'fraction')::DOUBLE PRECISION AS fraction_of_fleet,
    trial.tried ->> 'hyperparameters' AS hyperparameters,
    (arm.judged ->> 'devices')::BIGINT AS devices,
    (arm.judged ->> 'mean_difference')::DOUBLE PRECISION AS mean_difference,
    (arm.judged ->> 'p_holm')::DOUBLE PRECISION AS p_holm,
    decision.evidence #>> '{judgement,winner}' = trial.tried ->> 'trial' AS has_won
FROM tuning_decisions AS decision
CROSS JOIN LATERAL jsonb_array_elements(decision.trials) AS trial (tried)
LEFT JOIN LATERAL (
    SELECT each_arm.judged
    FROM jsonb_array_elements(decision.evidence #> '{judgement,arms}') AS each_arm (judged)
    WHERE each_arm.judged ->> 'trial' = trial.tried ->> 'trial'
) AS arm ON TRUE
WHERE decision.created_at BETWEEN %(time_from)s AND %(time_to)s
ORDER BY decision.revision DESC, trial ASC
LIMIT 200;
