-- The newest driver of the stream analysis, with its newest committed batch.
SELECT
    deployment.deployment_id,
    deployment.state,
    deployment.lag_rows,
    deployment.reason,
    deployment.submitted_at,
    deployment.heartbeat_at,
    deployment.last_batch_at,
    batch.rows,
    batch.invalid,
    batch.late_rows,
    batch.seconds,
    batch.model_version
FROM stream_deployments AS deployment
LEFT JOIN LATERAL (
    SELECT
        done.rows,
        done.invalid,
        done.late_rows,
        done.seconds,
        done.model_version
    FROM stream_analysis_batches AS done
    WHERE done.query_id = deployment.query_id AND done.state = 'committed'
    ORDER BY done.batch_id DESC
    LIMIT 1
) AS batch ON TRUE
ORDER BY deployment.id DESC
LIMIT 1
