-- Every global model version; version numbers grow over all feature schemas.
CREATE TABLE IF NOT EXISTS federated_models (
    version BIGINT PRIMARY KEY CHECK (version >= 1),
    -- 0: the first version of its schema, which starts from zero weights
    parent_version BIGINT NOT NULL CHECK (parent_version >= 0 AND parent_version < version),
    restored_version BIGINT REFERENCES federated_models (version),
    aggregation_round BIGINT UNIQUE REFERENCES aggregation_rounds (round),
    status TEXT NOT NULL CHECK (status IN ('candidate', 'promoted', 'rejected', 'rolled_back')),
    feature_schema TEXT NOT NULL,
    feature_names TEXT[] NOT NULL,
    strategy TEXT NOT NULL,
    options JSONB NOT NULL,
    weights DOUBLE PRECISION[] NOT NULL,
    intercept DOUBLE PRECISION NOT NULL,
    standardizer JSONB NOT NULL,
    num_devices BIGINT NOT NULL,
    num_updates BIGINT NOT NULL,
    total_samples BIGINT NOT NULL,
    -- {"partition": highest offset of edge-iiot-stream that this version or an ancestor trained on}
    input_offsets JSONB NOT NULL,
    hyperparameters_revision BIGINT NOT NULL,
    -- What the parent had been measured at when this version was published, as its message says.
    parent_accuracy DOUBLE PRECISION,
    parent_loss DOUBLE PRECISION,
    -- Sums over the accepted updates that scored this version before training on the rows.
    metrics_rows BIGINT NOT NULL DEFAULT 0,
    metrics_log_loss_sum DOUBLE PRECISION NOT NULL DEFAULT 0,
    metrics_tp BIGINT NOT NULL DEFAULT 0,
    metrics_fp BIGINT NOT NULL DEFAULT 0,
    metrics_tn BIGINT NOT NULL DEFAULT 0,
    metrics_fn BIGINT NOT NULL DEFAULT 0,
    global_accuracy DOUBLE PRECISION GENERATED ALWAYS AS (
        (metrics_tp + metrics_tn)::DOUBLE PRECISION / nullif(metrics_rows, 0)
    ) STORED,
    global_loss DOUBLE PRECISION GENERATED ALWAYS AS (
        metrics_log_loss_sum / nullif(metrics_rows, 0)
    ) STORED,
    artifact_path TEXT NOT NULL,
    artifact_sha256 CHAR(64) NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    promoted_at TIMESTAMP WITH TIME ZONE
);

CREATE INDEX IF NOT EXISTS federated_models_by_schema
ON federated_models (feature_schema, version DESC);

CREATE TABLE IF NOT EXISTS model_head (
    feature_schema TEXT PRIMARY KEY,
    version BIGINT NOT NULL REFERENCES federated_models (version)
);
