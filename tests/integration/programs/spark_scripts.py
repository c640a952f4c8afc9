"""Run scripts in one JVM, each as if submitted: a line is [script, arguments, variables]."""

import json
import os
import runpy
import sys
from pathlib import Path

from pyspark.sql import SparkSession

# The next script takes the session up: another would need seconds to start.
SparkSession.stop = lambda _: None
with Path(sys.argv[1]).open() as requests, Path(sys.argv[2]).open("w", buffering=1) as answers:
    for line in requests:
        script, arguments, variables = json.loads(line)
        sys.argv = [script, *arguments]
        os.environ.update(variables)
        try:
            runpy.run_path(script, run_name="__main__")
            answers.write("{}\n")
        except Exception as error:
            answers.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")
