"""Grafana's dashboards and alert rules as code; run as a module, it writes `grafana/`."""
