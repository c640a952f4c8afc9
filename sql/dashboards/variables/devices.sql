-- The first devices whose name begins with what is typed.
SELECT DISTINCT device_id
FROM device_moments
WHERE device_id LIKE %(typed)s
ORDER BY device_id
LIMIT 500;
