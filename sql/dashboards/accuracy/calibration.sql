-- Rows of the newest evaluation in ten bins of predicted probability.
WITH newest AS (
    SELECT evaluation.calibration
    FROM passed_evaluations AS evaluation
    INNER JOIN federated_models AS model ON evaluation.model_version = model.version
    WHERE
        evaluation.device_id = '*'
        AND evaluation.samples > 0
        AND model.feature_schema = %(feature_schema)s
        AND evaluation.window_end BETWEEN %(time_from)s AND %(time_to)s
    ORDER BY evaluation.window_end DESC, evaluation.model_version DESC
    LIMIT 1
),

bins AS (
    SELECT
        (newest.calibration -> 'count' ->> bin.number)::DOUBLE PRECISION AS rows,
        (newest.calibration -> 'probability_sum' ->> bin.number)::DOUBLE PRECISION
            AS probability_sum,
        (newest.calibration -> 'positives' ->> bin.number)::DOUBLE PRECISION AS positives
    FROM newest
    CROSS JOIN LATERAL generate_series(
        0, jsonb_array_length(newest.calibration -> 'count') - 1
    ) AS bin (number)
)

SELECT
    probability_sum / rows AS predicted,
    positives / rows AS observed,
    probability_sum / rows AS calibrated
FROM bins
WHERE rows > 0
ORDER BY predicted;
