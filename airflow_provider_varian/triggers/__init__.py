"""Triggers: waiting in Airflow's triggerer, many for one poll round."""
