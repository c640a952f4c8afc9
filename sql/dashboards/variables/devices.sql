-- The first devices whose name begins with what is typed.
SELECT device_id
FROM device_status
WHERE device_id LIKE %(typed)s
ORDER BY device_id
LIMIT 500;
