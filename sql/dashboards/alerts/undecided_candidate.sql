-- Seconds that the candidate of the feature list in use waits for its verdict: one of a list that
-- was given up stays undecided, with no device that could measure it.
SELECT coalesce(max(extract(EPOCH FROM now() - created_at)), 0)::DOUBLE PRECISION AS value
FROM federated_models
WHERE
    status = 'candidate'
    AND feature_schema = (
        SELECT newest.feature_schema
        FROM federated_models AS newest
        ORDER BY newest.version DESC
        LIMIT 1
    );
