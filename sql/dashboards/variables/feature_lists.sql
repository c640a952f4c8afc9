-- The feature lists that have models, the one of the newest version first.
SELECT
    feature_schema AS __value,
    left(array_to_string((array_agg(feature_names ORDER BY version DESC))[1:1], ', '), 60)
        AS __text
FROM federated_models
GROUP BY feature_schema
ORDER BY max(version) DESC;
