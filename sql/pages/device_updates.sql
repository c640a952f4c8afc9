-- What a device's windows have measured before training, added up by slot; without those whose
-- rejection speaks against their figures.
SELECT
    time_bucket(%(slot)s, window_end) AS slot_start,
    max(window_end) AS window_end,
    sum((global_metrics ->> 'rows')::DOUBLE PRECISION) AS global_rows,
    sum(
        (global_metrics ->> 'tp')::DOUBLE PRECISION + (global_metrics ->> 'tn')::DOUBLE PRECISION
    ) AS global_correct,
    sum((global_metrics ->> 'log_loss_sum')::DOUBLE PRECISION) AS global_log_loss_sum,
    sum((personalized_metrics ->> 'rows')::DOUBLE PRECISION) AS own_rows,
    sum(
        (personalized_metrics ->> 'tp')::DOUBLE PRECISION
        + (personalized_metrics ->> 'tn')::DOUBLE PRECISION
    ) AS own_correct,
    sum((personalized_metrics ->> 'log_loss_sum')::DOUBLE PRECISION) AS own_log_loss_sum,
    (array_agg(learning_rate ORDER BY window_end DESC))[1] AS learning_rate,
    (array_agg(training_status ORDER BY window_end DESC))[1] AS training_status
FROM local_models
WHERE
    device_id = %(device)s
    AND kafka_timestamp > %(end)s - %(reach)s
    AND kafka_timestamp <= %(end)s
    AND coalesce(reject_reason, '') NOT IN (
        'unknown_schema', 'dimension', 'not_finite', 'implausible'
    )
GROUP BY time_bucket(%(slot)s, window_end)
ORDER BY time_bucket(%(slot)s, window_end)
