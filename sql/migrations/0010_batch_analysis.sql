-- One row an analysed UTC day: what it was analysed with, and what has come in since.
CREATE TABLE IF NOT EXISTS analysis_days (
    analysis_date DATE PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('running', 'done', 'empty')),
    read_from TEXT CHECK (read_from IN ('archive', 'kafka')),
    -- Promoted at the day's end; the reference is the newest at the date's first run, and stays.
    model_version BIGINT REFERENCES federated_models (version),
    reference_model_version BIGINT REFERENCES federated_models (version),
    rows BIGINT,
    devices BIGINT,
    -- Rows that were archived after the analysis had begun, later than the closing lateness allows.
    late_rows BIGINT NOT NULL DEFAULT 0 CHECK (late_rows >= 0),
    needs_rerun BOOLEAN GENERATED ALWAYS AS (late_rows > 0) STORED,
    -- Whether the last analysis began after the day and its lateness were over.
    closed BOOLEAN NOT NULL,
    first_run_at TIMESTAMP WITH TIME ZONE NOT NULL,
    analysed_at TIMESTAMP WITH TIME ZONE
);

-- One row a device and day, replaced as a whole day.
CREATE TABLE IF NOT EXISTS batch_analysis_results (
    analysis_date DATE NOT NULL,
    device_id TEXT NOT NULL,
    row_count BIGINT NOT NULL CHECK (row_count > 0),
    rows_labelled BIGINT NOT NULL,
    first_event_time TIMESTAMP WITH TIME ZONE NOT NULL,
    last_event_time TIMESTAMP WITH TIME ZONE NOT NULL,
    -- Rows with an anomaly by each model, null where none of the rows is of its feature list.
    feature_schema TEXT,
    model_version BIGINT,
    scored_rows BIGINT NOT NULL,
    anomaly_count BIGINT,
    anomaly_rate DOUBLE PRECISION GENERATED ALWAYS AS (
        anomaly_count::DOUBLE PRECISION / nullif(scored_rows, 0)
    ) STORED,
    reference_model_version BIGINT,
    reference_anomaly_count BIGINT,
    zscore_anomaly_count BIGINT NOT NULL,
    -- {"feature": {"count", "missing_share", "mean", "std", "quantiles": [p00, p05, ..., p100]}}
    feature_statistics JSONB NOT NULL,
    -- The largest of {"feature": Jensen-Shannon distance to the days before, or null}
    drift DOUBLE PRECISION,
    feature_drift JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
    PRIMARY KEY (analysis_date, device_id)
);

CREATE INDEX IF NOT EXISTS batch_analysis_results_by_device
ON batch_analysis_results (device_id, analysis_date DESC);

-- The newest update of a device before a position of its input.
CREATE INDEX IF NOT EXISTS local_models_by_input
ON local_models (device_id, input_partition, last_offset DESC);
