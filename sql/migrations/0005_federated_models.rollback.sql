DROP TABLE IF EXISTS model_head;

DROP TABLE IF EXISTS federated_models;
