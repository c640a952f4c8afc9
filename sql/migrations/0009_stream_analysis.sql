-- Every driver of the stream analysis: its row is written before it is submitted.
CREATE TABLE IF NOT EXISTS stream_deployments (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    deployment_id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('submitting', 'active', 'stopping', 'stopped', 'failed')),
    configuration JSONB NOT NULL,
    -- Whether the driver is asked to end after its batch, and whether the stack starts it again.
    stop_requested BOOLEAN NOT NULL DEFAULT FALSE,
    is_wanted BOOLEAN NOT NULL DEFAULT TRUE,
    hostname TEXT,
    pid INTEGER,
    query_id TEXT,
    lag_rows BIGINT,
    reason TEXT,
    submitted_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
    started_at TIMESTAMP WITH TIME ZONE,
    heartbeat_at TIMESTAMP WITH TIME ZONE,
    last_batch_at TIMESTAMP WITH TIME ZONE
);

-- One row a micro-batch: what it is analysed with is fixed when it opens, also for its repetition.
CREATE TABLE IF NOT EXISTS stream_analysis_batches (
    id BIGINT GENERATED ALWAYS AS IDENTITY UNIQUE,
    query_id TEXT NOT NULL,
    batch_id BIGINT NOT NULL CHECK (batch_id >= 0),
    state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'committed', 'abandoned')),
    -- 0: no model had been promoted
    model_version BIGINT NOT NULL,
    feature_names TEXT[] NOT NULL,
    -- {"partition": offset}: the first, and one past the last message
    start_offsets JSONB,
    end_offsets JSONB,
    messages BIGINT,
    rows BIGINT,
    invalid BIGINT,
    late_rows BIGINT,
    seconds DOUBLE PRECISION,
    -- {"buckets": number, "files": {"bucket": name}}: history of the devices after this batch
    tails JSONB,
    opened_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
    committed_at TIMESTAMP WITH TIME ZONE,
    PRIMARY KEY (query_id, batch_id),
    CHECK ((state = 'committed') = (committed_at IS NOT NULL))
);

-- Sums of a device's rows in a window, by the version that scored them; rows of a window that come
-- in a later batch are added.
CREATE TABLE IF NOT EXISTS stream_analysis_results (
    window_start TIMESTAMP WITH TIME ZONE NOT NULL,
    window_seconds INTEGER NOT NULL CHECK (window_seconds > 0),
    device_id TEXT NOT NULL,
    model_version BIGINT NOT NULL,
    row_count BIGINT NOT NULL CHECK (row_count > 0),
    anomaly_count BIGINT NOT NULL,
    scored_rows BIGINT NOT NULL,
    probability_sum DOUBLE PRECISION NOT NULL,
    rows_labelled BIGINT NOT NULL,
    correct BIGINT NOT NULL,
    mean_probability DOUBLE PRECISION GENERATED ALWAYS AS (
        probability_sum / nullif(scored_rows, 0)
    ) STORED,
    -- Of the labelled rows that were scored
    accuracy DOUBLE PRECISION GENERATED ALWAYS AS (
        correct::DOUBLE PRECISION / nullif(rows_labelled, 0)
    ) STORED,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
    PRIMARY KEY (window_start, window_seconds, device_id, model_version)
);

CREATE INDEX IF NOT EXISTS stream_analysis_results_by_device
ON stream_analysis_results (device_id, window_seconds, window_start DESC);

CREATE INDEX IF NOT EXISTS stream_analysis_results_by_creation
ON stream_analysis_results (created_at);

-- Rows that the z-score rule calls anomalous, with the global model's probability.
CREATE TABLE IF NOT EXISTS anomalies (
    kafka_partition INTEGER NOT NULL,
    kafka_offset BIGINT NOT NULL,
    event_time TIMESTAMP WITH TIME ZONE NOT NULL,
    device_id TEXT NOT NULL,
    -- That of the largest z-score
    feature TEXT NOT NULL,
    value DOUBLE PRECISION NOT NULL,
    z_score DOUBLE PRECISION NOT NULL,
    -- {"feature": z-score} of all beyond the threshold
    features JSONB NOT NULL,
    probability DOUBLE PRECISION,
    model_version BIGINT NOT NULL,
    label SMALLINT, -- noqa: RF04
    PRIMARY KEY (kafka_partition, kafka_offset, event_time)
);

CREATE INDEX IF NOT EXISTS anomalies_by_time ON anomalies (event_time DESC);

CREATE INDEX IF NOT EXISTS anomalies_by_device ON anomalies (device_id, event_time DESC);

-- The first row of each device in every slot of 15 s.
CREATE TABLE IF NOT EXISTS device_samples (
    kafka_partition INTEGER NOT NULL,
    kafka_offset BIGINT NOT NULL,
    event_time TIMESTAMP WITH TIME ZONE NOT NULL,
    device_id TEXT NOT NULL,
    slot_start TIMESTAMP WITH TIME ZONE NOT NULL,
    -- {"feature": value or null}
    features JSONB NOT NULL,
    label SMALLINT, -- noqa: RF04
    probability DOUBLE PRECISION,
    is_anomalous BOOLEAN NOT NULL,
    model_version BIGINT NOT NULL,
    PRIMARY KEY (kafka_partition, kafka_offset, event_time)
);

CREATE INDEX IF NOT EXISTS device_samples_by_slot ON device_samples (device_id, slot_start DESC);

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        PERFORM create_hypertable(
            'stream_analysis_results', 'window_start',
            chunk_time_interval => INTERVAL '1 day', if_not_exists => TRUE
        );
        PERFORM create_hypertable(
            'anomalies', 'event_time',
            chunk_time_interval => INTERVAL '1 day', if_not_exists => TRUE
        );
        PERFORM create_hypertable(
            'device_samples', 'event_time',
            chunk_time_interval => INTERVAL '1 day', if_not_exists => TRUE
        );
        -- The Apache edition of TimescaleDB has hypertables, but no policies.
        IF current_setting('timescaledb.license', TRUE) = 'timescale' THEN
            PERFORM add_retention_policy(
                'stream_analysis_results', INTERVAL '30 days', if_not_exists => TRUE
            );
            PERFORM add_retention_policy('anomalies', INTERVAL '30 days', if_not_exists => TRUE);
            PERFORM add_retention_policy(
                'device_samples', INTERVAL '30 days', if_not_exists => TRUE
            );
        END IF;
    END IF;
END
$$;

-- A window as a whole, whichever versions scored its rows.
DROP VIEW IF EXISTS stream_windows;

CREATE OR REPLACE VIEW stream_windows AS
SELECT
    window_start,
    window_seconds,
    device_id,
    max(model_version) AS model_version,
    sum(row_count)::BIGINT AS row_count,
    sum(anomaly_count)::BIGINT AS anomaly_count,
    sum(scored_rows)::BIGINT AS scored_rows,
    sum(probability_sum) / nullif(sum(scored_rows), 0) AS mean_probability,
    sum(rows_labelled)::BIGINT AS rows_labelled,
    (sum(correct) / nullif(sum(rows_labelled), 0))::DOUBLE PRECISION AS accuracy
FROM stream_analysis_results
GROUP BY window_start, window_seconds, device_id;
