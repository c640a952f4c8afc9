SELECT
    version,
    status,
    parent_version,
    global_accuracy AS accuracy,
    global_loss AS log_loss,
    metrics_rows AS labelled_rows,
    num_devices AS devices,
    num_updates AS updates,
    total_samples AS samples,
    strategy,
    hyperparameters_revision,
    created_at,
    promoted_at
FROM federated_models
WHERE
    feature_schema = %(feature_schema)s
    AND created_at BETWEEN %(time_from)s AND %(time_to)s
ORDER BY version DESC
LIMIT 500;
