-- The newest version that was ever in use and has labelled rows, and the one that devices use.
SELECT
    head.version AS head_version,
    measured.version AS measured_version,
    measured.global_accuracy AS accuracy,
    measured.global_loss AS log_loss,
    measured.metrics_rows AS labelled_rows,
    measured.num_devices AS devices
FROM model_head AS head
LEFT JOIN federated_models AS measured
    ON
        head.feature_schema = measured.feature_schema
        AND measured.metrics_rows > 0
        AND measured.status IN ('promoted', 'rolled_back')
WHERE head.feature_schema = %(feature_schema)s
ORDER BY measured.version DESC NULLS LAST
LIMIT 1;
