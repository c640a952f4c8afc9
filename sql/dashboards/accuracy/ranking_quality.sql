SELECT DISTINCT ON (evaluation.window_end)
    evaluation.window_end AS time,
    evaluation.roc_auc,
    evaluation.precision,
    evaluation.recall,
    evaluation.f1
FROM passed_evaluations AS evaluation
INNER JOIN federated_models AS model ON evaluation.model_version = model.version
WHERE
    evaluation.device_id = '*'
    AND evaluation.samples > 0
    AND model.feature_schema = %(feature_schema)s
    AND evaluation.window_end BETWEEN %(time_from)s AND %(time_to)s
ORDER BY evaluation.window_end ASC, evaluation.model_version DESC;
