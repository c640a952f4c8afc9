-- The newest versions with a prediction that quality checks passed.
SELECT model_version
FROM passed_feedback
GROUP BY model_version
ORDER BY model_version DESC
LIMIT 200;
