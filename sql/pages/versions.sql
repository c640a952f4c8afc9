-- The newest versions of the lineage whose head is the newest, oldest first.
SELECT * -- noqa: AM04
FROM (
    SELECT
        model.version,
        model.status,
        model.parent_version,
        model.restored_version,
        model.aggregation_round,
        model.num_devices,
        model.num_updates,
        model.total_samples,
        model.metrics_rows,
        model.global_accuracy,
        model.global_loss,
        model.created_at,
        model.promoted_at
    FROM federated_models AS model
    WHERE
        model.feature_schema = (
            SELECT head.feature_schema FROM model_head AS head
            ORDER BY head.version DESC
            LIMIT 1
        )
    ORDER BY model.version DESC
    LIMIT %(max_rows)s
) AS newest
ORDER BY version
