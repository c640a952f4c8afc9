"""Score the rows of a topic by SQL alone: the definition of inputs in another language.

Takes JSON: `kafka`, `topic`, `features`, `weights` (the intercept last), `moments` (of each device:
count, mean and m2 of each input) and `output`, the file for [device, partition, offset,
probability] of every row.
"""

import json
import sys
from pathlib import Path

from pyspark.sql import SparkSession

SCORES = """
WITH rows AS (
    SELECT row.device_id, row.features, `partition`, `offset`
    FROM (
        SELECT
            from_json(CAST(value AS STRING), 'device_id STRING, features MAP<STRING, DOUBLE>')
                AS row,
            `partition`, `offset`
        FROM messages
    )
    WHERE row.device_id IN (SELECT device_id FROM moments)
),
readings AS (
    SELECT device_id, `partition`, `offset`, number AS feature, features[name] AS value
    FROM rows CROSS JOIN features
),
rolled AS (
    SELECT
        *, count(value) OVER before AS known, avg(value) OVER before AS mean,
        stddev_pop(value) OVER before AS deviation
    FROM readings
    WINDOW before AS (
        PARTITION BY device_id, feature ORDER BY `partition`, `offset`
        ROWS BETWEEN 100 PRECEDING AND 1 PRECEDING
    )
),
inputs AS (
    SELECT device_id, `partition`, `offset`, 4 * feature + kind AS input, content
    FROM rolled LATERAL VIEW posexplode(array(
        value,
        CASE
            WHEN value IS NULL THEN NULL
            WHEN known < 30 OR deviation = 0 THEN 0D
            ELSE greatest(-10D, least(10D, (value - mean) / deviation))
        END,
        mean,
        deviation
    )) AS kind, content
),
standardized AS (
    SELECT
        inputs.device_id, `partition`, `offset`, inputs.input,
        CASE
            WHEN content IS NULL OR moments.m2 = 0 THEN 0D
            ELSE greatest(-10D, least(10D,
                (content - moments.mean) / sqrt(moments.m2 / moments.count)
            ))
        END AS content
    FROM inputs INNER JOIN moments
        ON inputs.device_id = moments.device_id AND inputs.input = moments.input
)
SELECT
    device_id, `partition`, `offset`,
    1 / (1 + exp(-max(intercept) - sum(weights.weight * content))) AS probability
FROM standardized INNER JOIN weights ON standardized.input = weights.input CROSS JOIN intercepts
GROUP BY device_id, `partition`, `offset`
"""

given = json.loads(sys.argv[1])
spark = SparkSession.builder.appName("scores_by_sql").getOrCreate().newSession()
# A few rows are read before their code would be compiled.
spark.conf.set("spark.sql.codegen.wholeStage", "false")
spark.conf.set("spark.sql.shuffle.partitions", "1")
messages = spark.read.format("kafka").option("kafka.bootstrap.servers", given["kafka"])
*weights, intercept = given["weights"]
moments = [
    (device, number, *map(float, of_input))
    for device, arrays in given["moments"].items()
    for number, of_input in enumerate(zip(*arrays, strict=True))
]
tables = {
    "features": (list(enumerate(given["features"])), "number INT, name STRING"),
    "weights": (list(enumerate(weights)), "input INT, weight DOUBLE"),
    "intercepts": ([(intercept,)], "intercept DOUBLE"),
    "moments": (moments, "device_id STRING, input INT, count DOUBLE, mean DOUBLE, m2 DOUBLE"),
}
for name, (rows, columns) in tables.items():
    spark.createDataFrame(rows, columns).createOrReplaceTempView(name)
messages.option("subscribe", given["topic"]).load().createOrReplaceTempView("messages")
found = [tuple(row) for row in spark.sql(SCORES).collect()]
Path(given["output"]).write_text(json.dumps(found), encoding="utf-8")
