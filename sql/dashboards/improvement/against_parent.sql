-- A version and its parent on the same rows, which neither was trained on.
SELECT
    evaluation.window_end AS time,
    parent.log_loss - evaluation.log_loss AS loss_reduction,
    evaluation.accuracy - parent.accuracy AS accuracy_gain
FROM passed_evaluations AS evaluation
INNER JOIN federated_models AS model ON evaluation.model_version = model.version
INNER JOIN passed_evaluations AS parent
    ON
        model.parent_version = parent.model_version
        AND evaluation.window_start = parent.window_start
        AND evaluation.window_end = parent.window_end
        AND evaluation.device_id = parent.device_id
WHERE
    evaluation.device_id = '*'
    AND evaluation.samples > 0
    AND model.feature_schema = %(feature_schema)s
    AND evaluation.window_end BETWEEN %(time_from)s AND %(time_to)s
ORDER BY time, evaluation.model_version;
