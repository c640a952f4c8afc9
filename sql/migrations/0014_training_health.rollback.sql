DROP TABLE IF EXISTS training_health;
