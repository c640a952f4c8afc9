-- What is known of a device: its newest update, and the newest of the fleet to compare with.
SELECT
    device_id,
    kafka_timestamp,
    training_status,
    model_version,
    base_version,
    learning_rate,
    trial,
    rows,
    rows_labelled,
    accuracy,
    log_loss,
    global_accuracy,
    global_log_loss,
    kafka_timestamp < (
        SELECT max(newest.kafka_timestamp) FROM device_status AS newest
    ) - %(silence)s AS is_silent
FROM device_status
WHERE device_id = %(device)s
