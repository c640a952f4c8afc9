SELECT
    hyperparameter.key AS hyperparameter,
    hyperparameter.value::DOUBLE PRECISION AS value,
    (decision.incumbent ->> hyperparameter.key)::DOUBLE PRECISION AS before
FROM (
    SELECT
        hyperparameters,
        incumbent
    FROM tuning_decisions
    ORDER BY revision DESC
    LIMIT 1
) AS decision
CROSS JOIN LATERAL jsonb_each_text(decision.hyperparameters) AS hyperparameter
ORDER BY hyperparameter.key;
