#!/usr/bin/env python3
"""Bring in every picture of an Azure blob container, and forget those that are gone from it.

    scripts/ingest_blob_container.py photos [folder/within]

Needs the extra `azure`, and AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and one of
AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or an identity of this machine. Settings come from the environment
and from a file .env in the working directory. Blobs whose ETag is unchanged are not downloaded again.
"""

import argparse
import sys

from lookalike import Lookalike, LookalikeError, Settings, read_environment


def main() -> int:
    parser = argparse.ArgumentParser(description="Bring in every picture of an Azure blob container.")
    parser.add_argument("container")
    parser.add_argument("folder", nargs="?", default="", help="only what lies below this folder")
    given = parser.parse_args()
    url = f"abfs://{given.container}/{given.folder}".rstrip("/")
    with Lookalike.open(Settings.from_environment(read_environment())) as images:
        report = images.ingest(url, collection=given.container, prune=True)
        print(f"{url}: {report.found} found, {report.embedded} embedded, {report.pruned_files} forgotten")
        for failure in images.failures()[: report.new_failures]:
            print(f"  {failure.uri}: {failure.message}", file=sys.stderr)
    return 1 if report.new_failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LookalikeError as error:
        sys.exit(f"{error}")
