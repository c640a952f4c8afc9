-- What the fleet trained with after each decision, as a multiple of the first value.
SELECT
    coalesce(decision.decided_at, decision.created_at) AS time,
    hyperparameter.key AS metric,
    hyperparameter.value::DOUBLE PRECISION
    / nullif(
        first_value(hyperparameter.value::DOUBLE PRECISION)
            OVER (PARTITION BY hyperparameter.key ORDER BY decision.revision),
        0
    ) AS of_its_first_value
FROM tuning_decisions AS decision
CROSS JOIN LATERAL jsonb_each_text(decision.hyperparameters) AS hyperparameter
WHERE coalesce(decision.decided_at, decision.created_at) BETWEEN %(time_from)s AND %(time_to)s
ORDER BY 1, 2;
