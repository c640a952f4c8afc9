-- Of what the z-score rule calls anomalous: how much is, and what the global model says of it.
SELECT
    time_bucket(%(interval)s::INTERVAL, event_time) AS time,
    avg(label)::DOUBLE PRECISION AS labelled_anomalous,
    avg((probability >= 0.5)::INTEGER)::DOUBLE PRECISION AS called_anomalous_by_the_model
FROM anomalies
WHERE event_time BETWEEN %(time_from)s AND %(time_to)s
GROUP BY 1
ORDER BY 1;
