-- Evaluations of a run. A *_gap is the distance of a figure from what its counts or sums give.
WITH run AS (
    SELECT * FROM evaluation_runs
    WHERE evaluation_run_id = %(run)s
),

evaluated AS (
    SELECT * FROM model_evaluations
    WHERE evaluation_run_id = %(run)s
),

devices AS (
    SELECT
        model_version,
        count(*) AS devices,
        sum(rows) AS rows,
        sum(samples) AS samples,
        sum(tp) AS tp,
        sum(fp) AS fp,
        sum(tn) AS tn,
        sum(fn) AS fn,
        sum(log_loss_sum) AS log_loss_sum
    FROM evaluated
    WHERE device_id <> '*'
    GROUP BY model_version
),

newest AS (
    SELECT max(model_version) AS version FROM devices
),

messages AS (
    SELECT
        key AS device_id,
        count(*) AS messages,
        max((value::JSONB ->> 'model_version')::BIGINT) AS model_version,
        max((value::JSONB ->> 'samples')::BIGINT) AS samples,
        max((value::JSONB ->> 'accuracy')::DOUBLE PRECISION) AS accuracy,
        max((value::JSONB ->> 'log_loss')::DOUBLE PRECISION) AS log_loss
    FROM outbox
    WHERE topic = 'model-feedback' AND value::JSONB ->> 'evaluation_run_id' = %(run)s
    GROUP BY key
),

last_week AS (
    SELECT
        avg(passed.accuracy) AS mean,
        -- A spread below a point would make every step an outlier.
        greatest(stddev_samp(passed.accuracy), 0.01) AS deviation
    FROM run
    INNER JOIN passed_evaluations AS passed
        ON
            passed.device_id = '*'
            AND run.evaluation_run_id <> passed.evaluation_run_id
            AND passed.window_end BETWEEN run.window_end - INTERVAL '7 days' AND run.window_end
    INNER JOIN federated_models AS model
        ON passed.model_version = model.version AND run.feature_schema = model.feature_schema
    HAVING count(passed.accuracy) >= 10
),

judged AS (
    SELECT
        evaluated.*,
        evaluated.device_id = '*' AND evaluated.status = 'evaluated' AS is_fleet,
        evaluated.device_id <> '*'
        AND evaluated.model_version = (SELECT newest.version FROM newest) AS is_told,
        evaluated.tp::DOUBLE PRECISION
        / nullif(evaluated.tp + evaluated.fp, 0) AS precision_of_counts,
        evaluated.tp::DOUBLE PRECISION / nullif(evaluated.tp + evaluated.fn, 0) AS recall_of_counts
    FROM evaluated
)

SELECT
    judged.model_version,
    judged.device_id,
    judged.accuracy,
    judged.precision,
    judged.recall,
    judged.f1,
    judged.roc_auc,
    judged.log_loss,
    judged.brier,
    (
        ARRAY[
            judged.accuracy, judged.precision, judged.recall, judged.f1, judged.roc_auc,
            judged.log_loss, judged.brier, judged.log_loss_sum, judged.brier_sum
        ] && ARRAY['NaN', 'Infinity', '-Infinity']::DOUBLE PRECISION[]
    ) IS FALSE AS is_finite,
    (judged.samples - judged.tp - judged.fp - judged.tn - judged.fn)::DOUBLE PRECISION
        AS samples_gap,
    (judged.rows - judged.samples)::DOUBLE PRECISION AS rows_without_label,
    (judged.samples > 0) = (judged.accuracy IS NOT NULL)
    AND (judged.samples > 0) = (judged.log_loss IS NOT NULL)
    AND (judged.samples > 0) = (judged.brier IS NOT NULL) AS has_figures_of_labels_only,
    abs(
        judged.accuracy
        - (judged.tp + judged.tn)::DOUBLE PRECISION / nullif(judged.samples, 0)
    ) AS accuracy_gap,
    -- Without an anomaly there is no precision; with one and none found, it is 0.
    abs(judged.precision - coalesce(judged.precision_of_counts, 0)) AS precision_gap,
    abs(judged.recall - judged.recall_of_counts) AS recall_gap,
    abs(
        judged.f1 - coalesce(
            2 * judged.precision * judged.recall / nullif(judged.precision + judged.recall, 0), 0
        )
    ) AS f1_gap,
    abs(judged.log_loss - judged.log_loss_sum / nullif(judged.samples, 0)) AS log_loss_gap,
    abs(judged.brier - judged.brier_sum / nullif(judged.samples, 0)) AS brier_gap,
    extract(
        EPOCH FROM run.evaluated_at - least(judged.window_end, judged.evaluation_timestamp)
    )::DOUBLE PRECISION AS age_seconds,
    (judged.window_start, judged.window_end) = (run.window_start, run.window_end)
        AS is_in_window,
    (
        SELECT count(*) FROM unnest(run.versions) AS wanted (version)
        WHERE NOT EXISTS (
            SELECT FROM evaluated
            WHERE evaluated.model_version = wanted.version AND evaluated.device_id = '*'
        )
    )::DOUBLE PRECISION AS versions_missing,
    CASE WHEN judged.is_fleet THEN run.devices - coalesce(devices.devices, 0) END::DOUBLE PRECISION
        AS devices_missing,
    CASE WHEN judged.is_fleet THEN greatest(
        abs(judged.rows - devices.rows), abs(judged.samples - devices.samples),
        abs(judged.tp - devices.tp), abs(judged.fp - devices.fp),
        abs(judged.tn - devices.tn), abs(judged.fn - devices.fn)
    ) END::DOUBLE PRECISION AS fleet_counts_gap,
    CASE
        WHEN judged.is_fleet
            THEN abs(judged.log_loss_sum - devices.log_loss_sum) / greatest(devices.log_loss_sum, 1)
    END AS fleet_loss_gap,
    -- Of n devices that send alike, r rows come from n (1 - exp(-r / n)): occupancy of n urns.
    CASE WHEN judged.is_fleet THEN devices.devices / nullif(
        model.num_devices
        * (1 - exp(-judged.rows::DOUBLE PRECISION / nullif(model.num_devices, 0))), 0
    ) END AS share_of_devices,
    CASE
        WHEN judged.is_told
            THEN coalesce(messages.messages, 0) - (judged.samples > 0)::INTEGER
    END::DOUBLE PRECISION AS messages_gap,
    CASE WHEN judged.is_told THEN greatest(
        abs(messages.model_version - judged.model_version),
        abs(messages.samples - judged.samples),
        abs(messages.accuracy - judged.accuracy),
        abs(messages.log_loss - judged.log_loss)
    ) END AS message_figures_gap,
    CASE
        WHEN judged.is_fleet AND judged.model_version = (SELECT newest.version FROM newest)
            THEN (judged.accuracy - last_week.mean) / last_week.deviation
    END AS accuracy_deviations
FROM judged
CROSS JOIN run
LEFT JOIN devices ON judged.model_version = devices.model_version
LEFT JOIN messages ON judged.device_id = messages.device_id
LEFT JOIN federated_models AS model ON judged.model_version = model.version
LEFT JOIN last_week ON TRUE
ORDER BY judged.model_version, judged.device_id
