#!/usr/bin/env python3
"""Search by a text, or by a picture.

    scripts/search.py "a blue house"
    scripts/search.py --image holiday.jpg --limit 20

Settings come from the environment and from a file .env in the working directory.
"""

import argparse
import sys

from lookalike import Lookalike, LookalikeError, Settings, read_environment


def main() -> None:
    parser = argparse.ArgumentParser(description="Search by a text, or by a picture.")
    parser.add_argument("text", nargs="?", help="what to look for, in words")
    parser.add_argument("--image", help="a file, URL or image id to start from instead")
    parser.add_argument("--limit", type=int, default=10, help="number of hits (10)")
    given = parser.parse_args()
    if (given.text is None) == (given.image is None):
        parser.error("give either a text or --image")
    with Lookalike.open(Settings.from_environment(read_environment())) as images:
        for hit in images.search(given.text, image=given.image, limit=given.limit):
            print(f"{hit.similarity:.4f}  {hit.path or hit.uri}")


if __name__ == "__main__":
    try:
        main()
    except (LookalikeError, ValueError) as error:
        sys.exit(f"{error}")
