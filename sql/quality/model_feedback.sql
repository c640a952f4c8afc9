-- Predictions of an evaluation run.
WITH run AS (
    SELECT * FROM evaluation_runs
    WHERE evaluation_run_id = %(run)s
),

evaluated AS (
    SELECT
        device_id,
        model_version,
        samples
    FROM model_evaluations
    WHERE evaluation_run_id = %(run)s AND device_id <> '*'
),

newest AS (
    SELECT max(model_version) AS version FROM evaluated
)

SELECT
    feedback.kafka_partition,
    feedback.kafka_offset,
    feedback.device_id,
    feedback.prediction,
    feedback.actual::DOUBLE PRECISION AS actual,
    feedback.error,
    feedback.confidence,
    (
        ARRAY[feedback.prediction, feedback.error, feedback.confidence]
        && ARRAY['NaN', 'Infinity', '-Infinity']::DOUBLE PRECISION[]
    ) IS FALSE AS is_finite,
    abs(feedback.error - abs(feedback.actual - feedback.prediction)) AS error_gap,
    abs(feedback.confidence - abs(2 * feedback.prediction - 1)) AS confidence_gap,
    feedback.model_version = (SELECT newest.version FROM newest) AS is_of_newest_version,
    coalesce(
        feedback.kafka_offset >= (run.start_offsets ->> feedback.kafka_partition::TEXT)::BIGINT
        AND feedback.kafka_offset < (run.end_offsets ->> feedback.kafka_partition::TEXT)::BIGINT,
        FALSE
    ) AS is_in_window,
    coalesce(evaluated.samples > 0, FALSE) AS is_of_evaluated_device,
    extract(EPOCH FROM run.evaluated_at - feedback.evaluation_timestamp)::DOUBLE PRECISION
        AS age_seconds,
    (
        SELECT count(*) FROM evaluated AS labelled
        WHERE
            labelled.samples > 0
            AND labelled.model_version = (SELECT newest.version FROM newest)
            AND NOT EXISTS (
                SELECT FROM model_feedback AS given
                WHERE given.evaluation_run_id = %(run)s AND given.device_id = labelled.device_id
            )
    )::DOUBLE PRECISION AS devices_missing
FROM model_feedback AS feedback
CROSS JOIN run
LEFT JOIN evaluated
    ON feedback.device_id = evaluated.device_id AND feedback.model_version = evaluated.model_version
WHERE feedback.evaluation_run_id = %(run)s
ORDER BY feedback.kafka_partition, feedback.kafka_offset
