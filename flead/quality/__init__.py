"""Checks of what decisions rest on: suites of rules, judged on the rows of a run."""
