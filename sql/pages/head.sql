-- The version that the fleet uses, and the newest version of its lineage that was measured.
SELECT
    head.version,
    head.feature_schema,
    model.feature_names,
    model.promoted_at,
    model.num_devices,
    model.restored_version,
    measured.version AS measured_version,
    measured.metrics_rows AS measured_rows,
    measured.global_accuracy,
    measured.global_loss
FROM model_head AS head
INNER JOIN federated_models AS model ON head.version = model.version
LEFT JOIN LATERAL (
    SELECT
        scored.version,
        scored.metrics_rows,
        scored.global_accuracy,
        scored.global_loss
    FROM federated_models AS scored
    WHERE
        scored.feature_schema = head.feature_schema
        AND scored.status = 'promoted'
        AND scored.metrics_rows > 0
    ORDER BY scored.version DESC
    LIMIT 1
) AS measured ON TRUE
ORDER BY head.version DESC
LIMIT 1
