-- What devices have sent in a period: what tuning compares, and waits for. Rows come in the order of
-- their time, nearly, so that a range of each block is enough.
CREATE INDEX IF NOT EXISTS local_models_by_time ON local_models USING brin (kafka_timestamp);
