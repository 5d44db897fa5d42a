"""The wire: peers, associations, the DIMSE verbs and their statuses, on top of pynetdicom."""
