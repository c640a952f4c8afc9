"""FLEAD: federated anomaly detection for fleets of IoT devices."""
