"""Airflow provider for the Varian ARIA DICOM DB Daemon.

Not affiliated with or endorsed by Varian; not a medical device.
"""

__version__ = "0.1.0"
