-- Devices by the newest evaluation that quality checks passed, the worst first.
WITH newest AS (
    SELECT
        evaluation.model_version,
        evaluation.window_start,
        evaluation.window_end
    FROM passed_evaluations AS evaluation
    INNER JOIN federated_models AS model ON evaluation.model_version = model.version
    WHERE
        evaluation.device_id = '*'
        AND evaluation.samples > 0
        AND model.feature_schema = %(feature_schema)s
        AND evaluation.window_end BETWEEN %(time_from)s AND %(time_to)s
    ORDER BY evaluation.window_end DESC, evaluation.model_version DESC
    LIMIT 1
)

SELECT
    evaluation.device_id,
    evaluation.model_version,
    evaluation.samples AS labelled_rows,
    evaluation.accuracy,
    evaluation.log_loss,
    evaluation.recall,
    evaluation.precision
FROM passed_evaluations AS evaluation
INNER JOIN newest
    ON
        evaluation.model_version = newest.model_version
        AND evaluation.window_start = newest.window_start
        AND evaluation.window_end = newest.window_end
WHERE
    evaluation.device_id <> '*'
    AND evaluation.samples > 0
ORDER BY evaluation.log_loss DESC NULLS LAST, evaluation.device_id ASC
LIMIT 100;
