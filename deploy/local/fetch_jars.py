"""Fetch Java archives and what they depend on into a folder, and hold them against a list of sha256 sums.

Run by the `stack` environment's Python, which has jgo: `fetch_jars.py FOLDER SUMS COORDINATE…`.
SUMS has lines like `sha256sum` writes. With `--write-sums` the list is written instead of compared.
"""

import argparse
import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

import jgo


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("sums", type=Path)
    parser.add_argument("coordinates", nargs="+")
    parser.add_argument("--write-sums", action="store_true")
    args = parser.parse_args()

    args.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        for coordinate in args.coordinates:
            for jar in jgo.build(coordinate, cache_dir=Path(work)).all_jars:
                shutil.copyfile(jar, args.folder / Path(jar).name)
    found = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in sorted(args.folder.glob("*.jar"))}
    if args.write_sums:
        args.sums.write_text("".join(f"{digest}  {name}\n" for name, digest in found.items()))
        return 0
    pairs = (line.split(maxsplit=1) for line in args.sums.read_text().splitlines() if line.strip())
    wanted = {name.strip(): digest for digest, name in pairs}
    wrong = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
    if wrong:
        print(f"These archives are not the ones listed in {args.sums}: {', '.join(wrong)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
