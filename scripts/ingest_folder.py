#!/usr/bin/env python3
"""Bring a folder of pictures in, and list what could not be done.

    scripts/ingest_folder.py photos/ [more folders, files or globs …]

Settings come from the environment and from a file .env in the working directory: VISION_ENDPOINT and VISION_KEY,
LOOKALIKE_MODEL, LOOKALIKE_DATABASE_URL or LOOKALIKE_HOME. Start it again at any time: what is known costs nothing.
"""

import argparse
import sys

from lookalike import Lookalike, LookalikeError, Settings, read_environment


def main() -> int:
    parser = argparse.ArgumentParser(description="Bring folders of pictures in.")
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="a folder, a file or a glob")
    sources = parser.parse_args().sources
    with Lookalike.open(Settings.from_environment(read_environment())) as images:
        report = images.ingest(*sources)
        print(f"{report.model}: {report.embedded} embedded, {report.unchanged} unchanged, {report.failed} failed")
        if report.new_failures:
            for failure in images.failures()[: report.new_failures]:
                print(f"  {failure.uri}: {failure.message}", file=sys.stderr)
    return 1 if report.new_failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LookalikeError as error:
        sys.exit(f"{error}")
