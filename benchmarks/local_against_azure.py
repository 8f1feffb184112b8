"""How much of what Azure AI Vision finds near a photo does local/classic-1 find, too? An argument names the folder.

The folder holds `azure-vision-2022-04-11.npz` (arrays `files` and `vectors`) and the photos in `images/`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.embedders.local import LocalDescriptor
from lookalike.types import Embedding, ImageInput, Model

FOLDER = Path(__file__).resolve().parents[1].parent / "shared" / "real"
NEAREST = 10


def nearest(vectors: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """For each vector its nearest others by cosine similarity, shape (vectors, NEAREST)."""
    unit = vectors.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :NEAREST]


def main(folder: Path) -> int:
    recording = folder / "azure-vision-2022-04-11.npz"
    if not recording.is_file():
        print(f"{recording} is not there. Name the folder that holds it and images/.", file=sys.stderr)
        return 2
    with np.load(recording) as arrays:
        files, azure = arrays["files"], nearest(arrays["vectors"])
    embedder = LocalDescriptor(Model("local/classic-1"))
    vectors, seconds = [], []
    for file in files:
        data = (folder / "images" / str(file)).read_bytes()
        start = time.perf_counter()
        (answer,) = embedder.embed_images([ImageInput(data=data)])
        seconds.append(time.perf_counter() - start)
        assert isinstance(answer, Embedding), answer
        vectors.append(answer.vector)
    both = zip(nearest(np.array(vectors)), azure, strict=True)
    shares = [len(set(ours) & set(theirs)) / NEAREST for ours, theirs in both]
    print(f"photos                          {len(files)}")
    print(f"share of Azure's {NEAREST} nearest       {np.mean(shares):.3f}")
    print(f"  in two halves                 {np.mean(shares[::2]):.3f}, {np.mean(shares[1::2]):.3f}")
    print(f"by chance                       {NEAREST / (len(files) - 1):.3f}")
    print(f"median time per photo           {np.median(seconds) * 1000:.1f} ms")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER))
