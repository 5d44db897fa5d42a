"""The demonstrations of ``make demo`` and ``make demo-ui``."""
