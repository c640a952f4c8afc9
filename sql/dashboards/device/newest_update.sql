SELECT
    training_status,
    base_version AS global_version,
    model_version AS updates,
    learning_rate,
    accuracy AS personalized_accuracy,
    label_source,
    status AS judgement,
    kafka_timestamp AS received_at
FROM local_models
WHERE
    device_id = %(device)s
    AND kafka_timestamp BETWEEN %(time_from)s AND %(time_to)s
ORDER BY kafka_timestamp DESC
LIMIT 1;
