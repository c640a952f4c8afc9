-- The newest reading of the health gate.
SELECT
    created_at,
    deployment_id,
    job_id,
    job_state,
    vertices_running,
    vertices_total,
    checkpoint_interval_seconds,
    window_seconds,
    checkpoint_age_seconds,
    failed_checkpoints,
    restarts,
    back_pressure_ratio,
    lag_rows,
    lag_seconds,
    rows_per_second,
    updates_per_second,
    dead_letters_per_minute,
    stream_deployment_id,
    stream_state,
    stream_batch_age_seconds,
    stream_lag_rows,
    stream_lag_seconds,
    flink_error,
    kafka_error,
    verdict,
    reasons,
    now() - created_at AS age
FROM training_health
ORDER BY created_at DESC
LIMIT 1
