"""The verbs as Airflow operators, and the recipes on ARIA's terms."""
