-- The extension stays: other schemas of the database may use it.
SELECT 1;
