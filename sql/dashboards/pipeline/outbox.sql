-- What has not left for Kafka yet.
SELECT
    topic,
    CASE WHEN is_quarantined THEN 'quarantined' ELSE state END AS state,
    count(*) AS messages,
    min(created_at) AS oldest
FROM outbox
WHERE state <> 'published'
GROUP BY topic, is_quarantined, state
ORDER BY oldest;
