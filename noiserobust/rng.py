"""Random streams keyed by what they are for.

A :class:`Stream` is an address, not a state: the numbers at ``Stream(seed, "deploy", train_seed, draw, name)`` depend
on that address alone, so results do not depend on the order of evaluation, on batches, devices, workers or
interruptions. The address is hashed (BLAKE2b) to the 128-bit key of NumPy's counter-based Philox generator
(Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). Numbers are always drawn on the CPU.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from noiserobust.errors import InvalidValueError, check_integer

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

Part = int | str


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

        return np.random.Generator(np.random.Philox(key=self.key))

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return standard normal numbers, float32, of the given shape."""
        import numpy as np

        return self.generator().standard_normal(shape, dtype=np.float32)

    def laplace(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return numbers of the Laplace distribution of scale 1 (mean absolute value 1, std sqrt(2)), float32."""
        import numpy as np

        # The difference of two independent exponentials of rate 1; unlike Generator.laplace this has a float32 path.
        generator = self.generator()
        numbers = generator.standard_exponential(shape, dtype=np.float32)
        numbers -= generator.standard_exponential(shape, dtype=np.float32)
        return numbers

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
        with torch.random.fork_rng(devices=devices):
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


def _checked(part: Part) -> Part:
    if isinstance(part, str):
        return part
    try:
        return check_integer("stream part", part, minimum=0)
    except InvalidValueError:
        raise InvalidValueError(
            f"Expected every part of a stream's path to be a string or an integer >= 0, but got {part!r}"
        ) from None
