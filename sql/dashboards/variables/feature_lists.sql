-- The feature lists that have models in use, the one of the newest version first.
SELECT
    head.feature_schema AS __value,
    left(array_to_string(model.feature_names, ', '), 60) AS __text
FROM model_head AS head
INNER JOIN federated_models AS model ON head.version = model.version
ORDER BY head.version DESC;
