-- Seconds that the oldest message which is ready for Kafka waits.
SELECT coalesce(max(extract(EPOCH FROM now() - created_at)), 0)::DOUBLE PRECISION AS value
FROM outbox
WHERE state = 'ready';
