"""Fuzz one target, led by coverage.

    python -m fuzz.run TARGET [OPTIONS AND FOLDERS OF LIBFUZZER]

What shows a defect is written to a file ``crash-...`` and told as the line that belongs into
``corpus/TARGET.defects.txt``, where the tests try it from then on.
"""

from __future__ import annotations

import sys
import traceback

import atheris


def main() -> None:
    name = sys.argv[1]
    # What is imported in this block is watched: each branch, and what values are compared with.
    with atheris.instrument_imports(include=["airflow_provider_varian.dimse", "airflow_provider_varian.receiver"]):
        from fuzz.targets import TARGETS

    target = TARGETS[name]

    def test(data: bytes) -> None:
        try:
            target.test(data)
        except BaseException:
            traceback.print_exc()
            print(f"defect of {name}: {data.hex()}", file=sys.stderr, flush=True)
            raise

    bounds = [f"-max_len={target.longest}", "-timeout=10", "-rss_limit_mb=512"]
    atheris.Setup([sys.argv[0], *bounds, *sys.argv[2:]], test)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
