-- What the health gate has read and found: one row a reading. A figure that could not be read, or
-- that has no meaning yet, is null.
CREATE TABLE IF NOT EXISTS training_health (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    dag_run_id TEXT NOT NULL,
    deployment_id TEXT,
    job_id CHAR(32),
    -- Flink's, or ABSENT where Flink does not know the job
    job_state TEXT,
    vertices_running INTEGER,
    vertices_total INTEGER,
    -- Of the deployment, on which limits depend
    checkpoint_interval_seconds DOUBLE PRECISION,
    window_seconds DOUBLE PRECISION,
    -- Since the last checkpoint completed; before the first one, since the job started
    checkpoint_age_seconds DOUBLE PRECISION,
    -- Since the job started
    failed_checkpoints BIGINT,
    -- Failures that Flink tells of, in the window that the settings name
    restarts INTEGER,
    -- Largest share of its time that a subtask waits for those behind it
    back_pressure_ratio DOUBLE PRECISION,
    -- Telemetry beyond the offsets that the job has committed with its last checkpoint
    lag_rows BIGINT,
    lag_seconds DOUBLE PRECISION,
    -- Since the reading before
    rows_per_second DOUBLE PRECISION,
    updates_per_second DOUBLE PRECISION,
    dead_letters_per_minute DOUBLE PRECISION,
    stream_deployment_id TEXT,
    -- That of stream_deployments, or lost where its driver has died without a word
    stream_state TEXT,
    stream_trigger_seconds DOUBLE PRECISION,
    stream_batch_age_seconds DOUBLE PRECISION,
    stream_lag_rows BIGINT,
    stream_lag_seconds DOUBLE PRECISION,
    flink_error TEXT,
    kafka_error TEXT,
    -- {"committed": {"partition": offset}, "ends": {"topic": {"partition": offset}}}: what the next
    -- reading counts from
    positions JSONB NOT NULL,
    -- Of training and stream: what is being deployed, and what this reading has set going again
    deploying TEXT[] NOT NULL,
    healing TEXT[] NOT NULL,
    verdict TEXT NOT NULL CHECK (
        verdict IN ('healthy', 'deploying', 'breached', 'healing', 'exhausted')
    ),
    -- [{"rule", "value", "limit"}]
    reasons JSONB NOT NULL,
    -- TimescaleDB wants the time in every unique index.
    PRIMARY KEY (id, created_at),
    CHECK ((verdict IN ('healthy', 'deploying')) = (reasons = '[]'::JSONB)),
    CHECK ((verdict = 'healing') <= (healing <> '{}'))
);

CREATE INDEX IF NOT EXISTS training_health_by_time ON training_health (created_at DESC);

CREATE INDEX IF NOT EXISTS training_health_healing
ON training_health (created_at DESC) WHERE healing <> '{}';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        PERFORM create_hypertable(
            'training_health', 'created_at',
            chunk_time_interval => INTERVAL '1 day', if_not_exists => TRUE
        );
        -- The Apache edition of TimescaleDB has hypertables, but no policies.
        IF current_setting('timescaledb.license', TRUE) = 'timescale' THEN
            PERFORM add_retention_policy(
                'training_health', INTERVAL '30 days', if_not_exists => TRUE
            );
        END IF;
    END IF;
END
$$;
