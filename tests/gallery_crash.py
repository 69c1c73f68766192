"""Writers of one gallery are killed at random moments, two at work at any time; then everything is counted.

Run as a script, because it forks: `python tests/gallery_crash.py FOLDER KILLS [SEED]` prints what it found as JSON;
with `points` for KILLS a writer dies at each of its writes in turn, half-way through it.
"""

import hashlib
import json
import os
import random
import select
import signal
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process with threads must not fork

import numpy as np

from resynth_fast.gallery import Entry, Gallery, Layout

BLOCKS = {"shallow": 40, "deep": 300}
WRITERS = 2
LONGEST_S = 0.06


def layout() -> Layout:
    dimension = sum(BLOCKS.values())
    return Layout(name="test", sha256="a" * 64, blocks=BLOCKS, mean=np.zeros(dimension), scale=np.ones(dimension))


def reference(writer: int, number: int) -> tuple[Entry, np.ndarray]:
    """The same for the same numbers, so that what is found can be checked against what was written."""
    name = hashlib.sha256(f"{writer}/{number}".encode()).hexdigest()
    features = np.random.default_rng([writer, number]).standard_normal((1, sum(BLOCKS.values())), np.float32)
    return Entry(generator=f"writer {writer % 3}", picture_sha256=name, prompt=f"{writer}/{number}"), features


def write_for_ever(folder: Path, writer: int, pipe: int) -> None:
    """Add one reference after another; tell its number only when `add` has returned."""
    with Gallery.open(folder) as gallery:
        number = 0
        while True:
            entry, features = reference(writer, number)
            gallery.add([entry], features)
            os.write(pipe, number.to_bytes(4, "little"))
            number += 1


def fork(folder: Path, writer: int) -> tuple[int, int]:
    """(process, the pipe on which it tells)."""
    reading, writing = os.pipe()
    if (process := os.fork()) == 0:
        os.close(reading)
        write_for_ever(folder, writer, writing)
    os.close(writing)
    return process, reading


def told(pipe: int) -> int:
    """How many references a writer has finished, after its death."""
    content = b""
    while chunk := os.read(pipe, 1 << 16):
        content += chunk
    os.close(pipe)
    numbers = np.frombuffer(content, "<u4")
    assert (numbers == np.arange(len(numbers))).all()
    return len(numbers)


def run(folder: Path, kills: int, seed: int) -> dict[str, int]:
    rng = random.Random(seed)
    Gallery.create(folder, layout()).close()
    running = {writer: fork(folder, writer) for writer in range(WRITERS)}
    finished: dict[int, int] = {}
    next_writer = WRITERS
    for _ in range(kills):
        victim = rng.choice(list(running))
        process, pipe = running.pop(victim)
        if rng.random() < 0.7:
            select.select([pipe], [], [], 30)  # it is at work; else it may still be opening
        time.sleep(rng.uniform(0, LONGEST_S))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        finished[victim] = told(pipe)
        running[next_writer] = fork(folder, next_writer)
        next_writer += 1
    for writer, (process, pipe) in running.items():
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        finished[writer] = told(pipe)
    return {"kills": kills, **count(folder, finished)}


def die_at(call: int) -> None:
    """Kill this process in the middle of its call number `call` of those that write a vector file."""
    made = 0

    def counted(name: str):
        original = getattr(os, name)

        def function(*arguments):
            nonlocal made
            made += 1
            if made == call:
                if name == "pwrite":
                    descriptor, content, start = arguments
                    original(descriptor, content[: len(content) // 2], start)
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments)

        return function

    for name in ("pwrite", "fdatasync"):
        setattr(os, name, counted(name))


def at_every_point(folder: Path) -> dict[str, int]:
    """Die at the first write, the second … until one survives; after each death the gallery must be as before."""
    with Gallery.create(folder, layout()) as gallery:
        gallery.add(*one(0, 0))
    points = 0
    while True:
        if (process := os.fork()) == 0:
            die_at(points + 1)
            with Gallery.open(folder) as gallery:
                gallery.add(*one(1, 0))
            os._exit(0)
        if os.waitpid(process, 0)[1] == 0:
            break
        points += 1
        with Gallery.open(folder) as gallery:
            assert len(gallery) == 1, points
            assert not gallery.verify(), points
            assert (gallery.features([0]) == reference(0, 0)[1]).all(), points
    return {"points": points, **count(folder, {0: 1, 1: 1})}


def one(writer: int, number: int) -> tuple[list[Entry], np.ndarray]:
    entry, features = reference(writer, number)
    return [entry], features


def count(folder: Path, finished: dict[int, int]) -> dict[str, int]:
    """Every reference that a writer called finished must be there, unchanged, and at most the one that it had in hand."""
    lost = altered = surplus = in_hand = 0
    with Gallery.open(folder) as gallery:
        damaged = len(gallery.verify())
        entries = {entry.prompt: entry for entry in gallery.select()}
        for writer, done in finished.items():
            expected = [reference(writer, number) for number in range(done + 1)]
            there = [(entries.pop(entry.prompt, None), entry, features) for entry, features in expected]
            lost += sum(stored is None for stored, _, _ in there[:done])
            in_hand += there[done][0] is not None
            for stored, entry, features in there:
                if stored is not None:
                    same = stored.key == entry.key and (gallery.features([stored.row]) == features).all()
                    altered += not same
        surplus = len(entries)
    return {
        "finished": sum(finished.values()),
        "lost": lost,
        "altered": altered,
        "damaged": damaged,
        "surplus": surplus,
        "in_hand": in_hand,
    }


if __name__ == "__main__":
    folder, kills, *seed = sys.argv[1:]
    print(json.dumps(at_every_point(Path(folder)) if kills == "points" else run(Path(folder), int(kills), *map(int, seed or "0"))))
