"""Random streams keyed by what they are for.

A :class:`Stream` is an address, not a state: the numbers at ``Stream(seed, "deploy", train_seed, draw, name)`` depend
on that address alone, so results do not depend on the order of evaluation, on batches, devices, workers or
interruptions. The address is hashed (BLAKE2b) to the 128-bit key of NumPy's counter-based Philox generator
(Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). Numbers are always drawn on the CPU. Words are
the same everywhere, normal and Laplace numbers up to the last bits of the machine's logarithm, sine and cosine.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from noiserobust.errors import InvalidValueError, check_integer
from noiserobust.threads import in_threads

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.random.bit_generator import ISeedSequence
    from numpy.typing import NDArray

    Fill = Callable[[np.random.Philox, NDArray[np.float32]], None]

Part = int | str

_BLOCK = 1 << 18  # numbers drawn by one generator; part of what a stream means
_CHUNK = 1 << 16  # numbers worked on at a time: they stay in a cache, and threads do not wait for the next too often
_WORTH_THREADS = 1 << 20  # numbers; torch's own threads, which wait for work at full speed, are in the way of fewer


_TORCH_DEFAULT = threading.RLock()  # there is one global generator for all threads


class Stream:
    """An addressable source of random numbers.

    Args:
        seed: root seed, an integer >= 0 of any size.
        path: integers >= 0 and strings that tell streams of one root seed apart; ``1`` and ``"1"`` differ.

    Every drawing method starts the stream anew: two calls with the same shape return the same numbers. Take a
    :meth:`child` for numbers that have to be independent.

    >>> a = Stream(0, 3, "conv.weight")
    >>> bool((a.normal((2, 3)) == Stream(0, 3, "conv.weight").normal((2, 3))).all())
    True
    """

    __slots__ = ("path", "seed")

    def __init__(self, seed: int, *path: Part) -> None:
        self.seed = check_integer("seed", seed, minimum=0)
        self.path = tuple(_checked(part) for part in path)

    def child(self, *path: Part) -> Stream:
        """Return the stream at ``path`` below this one."""
        return Stream(self.seed, *self.path, *path)

    def __repr__(self) -> str:
        return f"Stream({', '.join(map(repr, (self.seed, *self.path)))})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and (self.seed, self.path) == (other.seed, other.path)

    def __hash__(self) -> int:
        return hash((self.seed, self.path))

    @property
    def key(self) -> int:
        """The 128-bit Philox key of this address."""
        # Each part is written with its type and length, so that no two addresses share an encoding.
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.seed, *self.path):
            kind, text = ("i", str(part)) if isinstance(part, int) else ("s", part)
            encoded = text.encode(errors="surrogatepass")  # names of files may hold undecodable bytes
            digest.update(f"{kind}{len(encoded)}:".encode())
            digest.update(encoded)
        return int.from_bytes(digest.digest(), "little")

    def generator(self) -> np.random.Generator:
        """Return a NumPy generator at the start of this stream."""
        import numpy as np

        return np.random.Generator(_philox(self.key))

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return standard normal numbers, float32, of the given shape."""
        return draw("normal", [(self, shape)])[0]

    def laplace(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return numbers of the Laplace distribution of scale 1 (mean absolute value 1, std sqrt(2)), float32."""
        return draw("laplace", [(self, shape)])[0]

    def permutation(self, n: int) -> NDArray[np.int64]:
        """Return a random order of ``range(n)``, int64."""
        return self.generator().permutation(n)

    @contextmanager
    def as_torch_default(self) -> Iterator[None]:
        """Let torch's global CPU generator (and those of CUDA devices) run from this stream inside the block.

        For code that only knows torch's global generator: weight initialisation, dropout, aihwkit's models. The
        states of the global generators are restored afterwards. CPU numbers get the full entropy of the stream;
        ``torch.manual_seed`` would keep 32 bits of it.
        """
        import torch

        devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
        with _TORCH_DEFAULT, torch.random.fork_rng(devices=devices):
            if devices:
                torch.cuda.manual_seed_all(self.key % 2**63)
            torch.set_rng_state(self._torch_state())
            yield

    def _torch_state(self) -> torch.Tensor:
        # torch's CPU state is 632 words of 64 bits: seed, (left, seeded), next, the 624 words of MT19937, the cached
        # normals. A freshly seeded generator has left = 1: the first number drawn twists the words given here.
        import numpy as np
        import torch

        state = torch.Generator().manual_seed(self.key % 2**63).get_state()
        words = state.numpy().view(np.uint64)
        words[3:627] = self.generator().integers(0, 2**32, size=624, dtype=np.uint64)
        return state


def draw(kind: str, requests: Sequence[tuple[Stream, tuple[int, ...]]]) -> list[NDArray[np.float32]]:
    """Draw for several streams at once, in a few threads; the numbers are those that each stream gives by itself.

    Arrays are filled in blocks of 2^18 numbers. Block i comes from the generator of its stream jumped ahead i times,
    by 2^128 numbers each, so the number of threads does not matter.

    Args:
        kind: ``"normal"`` or ``"laplace"``, as the methods of :class:`Stream`.
        requests: streams and shapes.
    """
    import numpy as np

    if not requests:
        return []
    sizes = [math.prod(shape) for _, shape in requests]
    memory = np.split(np.empty(sum(sizes), dtype=np.float32), np.cumsum(sizes)[:-1])
    arrays = [part.reshape(shape) for part, (_, shape) in zip(memory, requests, strict=True)]
    blocks: list[tuple[np.random.Philox, NDArray[np.float32]]] = []
    for (stream, _), array in zip(requests, arrays, strict=True):
        flat, philox = array.reshape(-1), _philox(stream.key)
        for number in range(-(-len(flat) // _BLOCK)):
            block = flat[number * _BLOCK : (number + 1) * _BLOCK]
            blocks.append((philox.jumped(number) if number else philox, block))
    in_threads(_FILL[kind], blocks, threads=1 if sum(sizes) < _WORTH_THREADS else None)
    return arrays


def _philox(key: int) -> np.random.Philox:
    """Return ``Philox(key=key)``, without the system's entropy that this would ask for and not use."""
    import numpy as np

    return np.random.Philox(_key_sequence()(key))  # type: ignore[arg-type]


@cache
def _key_sequence() -> Callable[[int], ISeedSequence]:
    import numpy as np
    from numpy.random.bit_generator import ISeedSequence

    class KeySequence(ISeedSequence):
        """What seeds a Philox generator with a key as it is."""

        def __init__(self, key: int) -> None:
            self.key = key

        def generate_state(self, n_words: int, dtype: object = np.uint32) -> NDArray[np.uint64]:
            return np.array([self.key % 2**64, self.key >> 64], dtype=np.uint64)

    return KeySequence


def _fill_normal(philox: np.random.Philox, numbers: NDArray[np.float32]) -> None:
    """Box and Muller (1958) on 32-bit uniform numbers: magnitudes up to 6.8; six times as fast as rejection."""
    import numpy as np

    half = -(-len(numbers) // 2)
    bits = _bits(philox, 2 * half)
    memory = np.empty((2, min(_CHUNK, half)), dtype=np.float32)
    for start in range(0, half, _CHUNK):
        stop = min(start + _CHUNK, half)
        radius, angle = memory[:, : stop - start]
        radius[:] = bits[start:stop]
        radius += 0.5
        radius *= 2**-32
        np.log(radius, out=radius)
        radius *= -2
        np.sqrt(radius, out=radius)
        angle[:] = bits[half + start : half + stop].view(np.int32)
        angle *= math.pi * 2**-31
        second = numbers[half + start : half + stop]  # one shorter at the end of an odd number
        np.sin(angle[: len(second)], out=second)
        second *= radius[: len(second)]
        first = numbers[start:stop]
        np.cos(angle, out=first)
        first *= radius


def _fill_laplace(philox: np.random.Philox, numbers: NDArray[np.float32]) -> None:
    """A sign and the logarithm of a 31-bit uniform number: magnitudes up to 22."""
    import numpy as np

    bits = _bits(philox, len(numbers))
    for start in range(0, len(numbers), _CHUNK):
        part, chunk = bits[start : start + _CHUNK], numbers[start : start + _CHUNK]
        chunk[:] = part >> 1
        chunk += 0.5
        chunk *= 2**-31
        np.log(chunk, out=chunk)
        np.negative(chunk, out=chunk, where=(part & 1).astype(bool))


def _bits(philox: np.random.Philox, n: int) -> NDArray[np.uint32]:
    """Return ``n`` random 32-bit words, the same on machines of either byte order."""
    words = philox.random_raw(-(-n // 2)).astype("<u8", copy=False)
    return words.view("<u4")[:n].astype("=u4", copy=False)


_FILL: dict[str, Fill] = {"normal": _fill_normal, "laplace": _fill_laplace}


def _checked(part: Part) -> Part:
    if isinstance(part, str):
        return part
    try:
        return check_integer("stream part", part, minimum=0)
    except InvalidValueError:
        raise InvalidValueError(
            f"Expected every part of a stream's path to be a string or an integer >= 0, but got {part!r}"
        ) from None
