"""The clinic's DICOM objects: attributes and pixels, by IOD."""
