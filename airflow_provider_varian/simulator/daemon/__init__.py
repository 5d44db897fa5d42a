"""The DB Daemon on the wire: who may call, what is answered, and which habits it has."""
