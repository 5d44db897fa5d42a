"""Run the command line as ``python -m airflow_provider_varian.cli``."""

from __future__ import annotations

import sys

from airflow_provider_varian.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
