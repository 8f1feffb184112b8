#!/usr/bin/env python3
"""Bring in the pictures that a table names, with your own ids and everything else that it says of them.

    scripts/ingest_manifest.py products.csv --key-column sku --collection shop

Tables are CSV, TSV, JSON Lines or Parquet. Settings come from the environment and from a file .env in the working
directory. Start it again at any time: what is known costs nothing, and what the table says anew is stored.
"""

import argparse
import sys

from lookalike import Lookalike, LookalikeError, Settings, read_environment


def main() -> int:
    parser = argparse.ArgumentParser(description="Bring in the pictures that a table names.")
    parser.add_argument("table", help="a .csv, .tsv, .jsonl or .parquet file")
    parser.add_argument("--key-column", help="the column with your own ids")
    parser.add_argument("--collection", default="default", help="the named set that the pictures belong to")
    parser.add_argument("--max-calls", type=int, help="stop after so many calls that are billed")
    given = parser.parse_args()
    options = {"key_column": given.key_column, "collection": given.collection}
    with Lookalike.open(Settings.from_environment(read_environment())) as images:
        plan = images.plan(given.table, **options)
        print(f"{plan.new} of {plan.found} are new: {plan.calls} calls, {plan.seconds:.0f} s at least")
        report = images.ingest(given.table, max_calls=given.max_calls, **options)
        print(f"{report.embedded} embedded, {report.unchanged} known, {report.failed} failed, {report.pending} pending")
        if report.new_failures:
            for failure in images.failures()[: report.new_failures]:
                print(f"  {failure.uri}: {failure.message}", file=sys.stderr)
    return 1 if report.new_failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LookalikeError as error:
        sys.exit(f"{error}")
