"""The command line ``varian-dicom``: a thin face over the verbs, and the only one that needs no Airflow."""
