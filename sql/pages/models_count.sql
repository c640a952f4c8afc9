-- How many versions are stored.
SELECT count(*) AS versions FROM federated_models
