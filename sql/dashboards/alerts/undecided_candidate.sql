-- Seconds that the oldest candidate waits for its verdict.
SELECT coalesce(max(extract(EPOCH FROM now() - created_at)), 0)::DOUBLE PRECISION AS value
FROM federated_models
WHERE status = 'candidate';
