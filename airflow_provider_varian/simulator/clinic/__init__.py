"""The clinic as facts: machines, patients, courses and what was done when, from a seed; no DICOM yet."""
