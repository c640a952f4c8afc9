DROP TABLE IF EXISTS training_deployments;
