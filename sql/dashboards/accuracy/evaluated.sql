-- The newest version of each evaluation, with two rules on the same rows.
SELECT DISTINCT ON (evaluation.window_end)
    evaluation.window_end AS time,
    evaluation.accuracy,
    (evaluation.baselines #>> '{always_normal,accuracy}')::DOUBLE PRECISION AS always_normal,
    (evaluation.baselines #>> '{zscore,accuracy}')::DOUBLE PRECISION AS z_score_rule
FROM passed_evaluations AS evaluation
INNER JOIN federated_models AS model ON evaluation.model_version = model.version
WHERE
    evaluation.device_id = '*'
    AND evaluation.samples > 0
    AND model.feature_schema = %(feature_schema)s
    AND evaluation.window_end BETWEEN %(time_from)s AND %(time_to)s
ORDER BY evaluation.window_end ASC, evaluation.model_version DESC;
