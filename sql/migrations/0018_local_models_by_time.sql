-- What devices have sent in a period: what tuning compares, and waits for. Rows come nearly in the
-- order of their time, so that a range of each block is enough.
CREATE INDEX IF NOT EXISTS local_models_by_time ON local_models USING brin (kafka_timestamp);
