"""Compare all pairs of CT volumes of a folder for being of one patient: a table, and the time."""

from __future__ import annotations

import argparse
import time
from itertools import combinations
from pathlib import Path

from aslseg.data import body_match
from aslseg.data.body_match import BodyDigest, body_digest
from aslseg.data.images import read_volume


def main() -> None:
    """Print what was compared, the pairs by their correlation, and how long it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of images")
    parser.add_argument("--pattern", default="volume-*.nii.gz")
    parser.add_argument("--shown", type=int, default=10, help="pairs in the table")
    arguments = parser.parse_args()
    digests, seconds = {}, 0.0
    for path in sorted(arguments.data.glob(arguments.pattern)):
        volume, began = read_volume(path), time.process_time()
        found = body_digest(volume)
        seconds += time.process_time() - began
        if isinstance(found, BodyDigest):
            digests[path.name.partition(".")[0]] = found
        else:
            print(f"{path.name}: not compared, {found}")
    pairs = list(combinations(digests, 2))
    threshold, body_match.SAME_BODY = body_match.SAME_BODY, -1.0  # all that is registered
    began = time.process_time()
    matches = body_match.matching_bodies(digests, pairs)
    print("| pair | correlation | overlap |\n|---|---|---|")
    for match in matches[: arguments.shown]:
        print(f"| {match.first}, {match.second} | {match.correlation:.2f} | {match.overlap:.2f} |")
    told = sum(match.correlation >= threshold for match in matches)
    print(f"\n{len(pairs)} pairs, {len(matches)} registered, {told} told (from {threshold}).")
    compared = time.process_time() - began
    print(f"{seconds:.1f} s for {len(digests)} volumes, {compared:.1f} s for all pairs.")


if __name__ == "__main__":
    main()
