-- What has not left for Kafka yet, and is to leave.
SELECT
    topic,
    state,
    count(*) AS messages,
    min(created_at) AS oldest
FROM outbox
WHERE state = 'ready' OR (state = 'held' AND NOT is_quarantined)
GROUP BY topic, state
ORDER BY oldest;
