"""The verbs of the command line, one module each, each with a :class:`~airflow_provider_varian.cli.verb.Verb`."""
