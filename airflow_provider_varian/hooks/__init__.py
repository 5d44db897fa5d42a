"""From an Airflow connection to a peer, and one method per verb."""
