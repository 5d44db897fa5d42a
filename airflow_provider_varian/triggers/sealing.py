"""What identifies a patient is sealed before a trigger's arguments go into Airflow's database.

Airflow writes the arguments of a deferred task's trigger there as plain JSON: the worker hands them over as they are,
and only what the scheduler itself defers is encrypted (seen in the sources of 3.1.8 and 3.3.2, whatever ``serialize``
is said to do). Airflow 3.1 also shows them to whoever may read the task instance. So keys of a query are encrypted
here, with the key that Airflow has for its connections, ``[core] fernet_key``.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_varian.errors import ConfigurationError


def seal(text: str) -> str:
    """Encrypt a text, e.g. the keys of a query.

    :raises ConfigurationError: Airflow has no key to encrypt with.
    """
    fernet = _fernet(hint="Set it, as for connections, or wait in the worker: deferrable=False")
    encrypted: bytes = fernet.encrypt(text.encode())
    return encrypted.decode("ascii")


def unseal(sealed: str) -> str:
    """Decrypt what :func:`seal` has returned.

    :raises ConfigurationError: it was encrypted with another key.
    """
    from cryptography.fernet import InvalidToken

    hint = "Give triggerer and workers the same [core] fernet_key"
    try:
        decrypted: bytes = _fernet(hint=hint).decrypt(sealed.encode("ascii"))
    except (InvalidToken, UnicodeEncodeError):
        raise ConfigurationError(
            "the query of a deferred task was encrypted with another key than this process has", hint=hint
        ) from None
    return decrypted.decode()


def _fernet(*, hint: str) -> Any:
    # Airflow's own, so that lists of keys, of which the first encrypts, are read as everywhere else.
    from airflow.models.crypto import get_fernet

    fernet = get_fernet()
    if not fernet.is_encrypted:
        raise ConfigurationError("[core] fernet_key is empty, and a query that is stored would be in clear", hint=hint)
    return fernet
