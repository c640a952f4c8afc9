DROP TABLE IF EXISTS device_moments;

DROP TABLE IF EXISTS local_models;
