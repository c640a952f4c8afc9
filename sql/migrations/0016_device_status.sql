-- The newest update of each device that a round has read: what the list of devices is made of,
-- which would look through weeks of local_models otherwise. Figures are those of its window,
-- measured before training; null where the window has no labels.
CREATE TABLE IF NOT EXISTS device_status (
    device_id TEXT PRIMARY KEY,
    kafka_offset BIGINT NOT NULL,
    kafka_timestamp TIMESTAMP WITH TIME ZONE NOT NULL,
    training_status TEXT NOT NULL,
    model_version BIGINT NOT NULL,
    base_version BIGINT NOT NULL,
    learning_rate DOUBLE PRECISION NOT NULL,
    trial TEXT,
    rows BIGINT NOT NULL,
    rows_labelled BIGINT NOT NULL,
    -- Of the personalized model, then of the global one
    accuracy DOUBLE PRECISION,
    log_loss DOUBLE PRECISION,
    global_accuracy DOUBLE PRECISION,
    global_log_loss DOUBLE PRECISION
    -- Every round writes most rows anew, in place where a page has room; no column is indexed but
    -- the key, for the same reason, and because all of the table is read faster than it is sorted.
) WITH (fillfactor = 70);

-- The pages of a device
CREATE INDEX IF NOT EXISTS model_feedback_by_device
ON model_feedback (device_id, event_time DESC);

CREATE INDEX IF NOT EXISTS model_evaluations_by_device
ON model_evaluations (device_id, window_end DESC);

-- The newest message of a broadcast topic, among the feedback for each device
CREATE INDEX IF NOT EXISTS outbox_broadcast
ON outbox (topic, key, id DESC) WHERE topic IN ('global-model-updates', 'training-control');

-- The page of quality: the newest evaluations, and the fleet's figures of one among its devices'
CREATE INDEX IF NOT EXISTS evaluation_runs_by_planning ON evaluation_runs (planned_at DESC);

CREATE INDEX IF NOT EXISTS model_evaluations_of_run
ON model_evaluations (evaluation_run_id, model_version) WHERE device_id = '*';

-- What was decided against lately, of a decision a minute
CREATE INDEX IF NOT EXISTS promotion_decisions_taken_back
ON promotion_decisions (decided_at DESC) WHERE decision = 'rolled_back';
