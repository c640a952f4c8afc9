-- How unequal devices fare: percentiles over devices in each evaluation of a newest version.
WITH newest AS (
    SELECT DISTINCT ON (evaluation.window_end)
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
    ORDER BY evaluation.window_end ASC, evaluation.model_version DESC
)

SELECT
    evaluation.window_end AS time,
    percentile_cont(0.05) WITHIN GROUP (ORDER BY evaluation.accuracy) AS fifth_percentile,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY evaluation.accuracy) AS median_device,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY evaluation.accuracy) AS ninety_fifth_percentile
FROM passed_evaluations AS evaluation
INNER JOIN newest
    ON
        evaluation.model_version = newest.model_version
        AND evaluation.window_start = newest.window_start
        AND evaluation.window_end = newest.window_end
WHERE
    evaluation.device_id <> '*'
    AND evaluation.samples > 0
GROUP BY evaluation.window_end
ORDER BY evaluation.window_end;
