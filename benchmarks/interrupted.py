r"""A small run killed by ``kill -9`` at 20 random moments: each resumes and ends equal to the whole one.

python benchmarks/interrupted.py [--kills 20] [--small]
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests import resumable


def start(place, name, output, num_simulations):
    """A run in a process of its own, which has the imports already."""
    folders = place / name, place / output, place / "errors.txt"
    return resumable.forked(resumable.train_apart, *folders, num_simulations, 4)


def finish(process, place):
    """Wait for the end of a run."""
    process.join()
    assert process.exitcode == 0, (place / "errors.txt").read_text()


def state(folder):
    """How far a run had come."""
    shards = len(list(folder.glob("simulations/*.safetensors"))) if folder.is_dir() else 0
    return f"{shards} shards, {'a' if (folder / 'checkpoint.safetensors').is_file() else 'no'} checkpoint"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it runs")
    arguments = parser.parse_args()
    num = 12_000
    if arguments.small:
        arguments.kills, num = 1, 1000
    moments = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        finish(start(place, "whole", "a", num), place)  # the first process makes the imports
        shutil.rmtree(place / "whole")
        begin = time.monotonic()
        finish(start(place, "whole", "a", num), place)
        length = time.monotonic() - begin
        expected = (place / "a" / "weights.safetensors").read_bytes()
        equal = killed = 0
        for j in range(arguments.kills):
            shutil.rmtree(place / "torn", ignore_errors=True)
            process = start(place, "torn", "b", num)
            moment = moments.uniform(0.0, 1.0) * length
            time.sleep(moment)
            alive = process.is_alive()
            process.kill()
            process.join()
            killed += alive
            progress = state(place / "torn")
            finish(start(place, "torn", "b", num), place)
            same = (place / "b" / "weights.safetensors").read_bytes() == expected
            equal += same
            print(
                f"{j + 1:3} killed after {moment:5.1f} s of {length:.1f} ({progress}): {'equal' if same else 'DIFFERENT'}{'' if alive else ' (had ended)'}",
                flush=True,
            )
    print(json.dumps({"runs": arguments.kills, "killed_alive": killed, "equal": equal}))


if __name__ == "__main__":
    main()
