"""Whether two CT volumes show one body: what is compared, and how well it agrees.

Files of one patient differ in voxels, extent, date and contrast phase, so their content cannot be
compared by hashes. Bones and organs lie where they lie, so two volumes are laid over each other and
their fine structure is correlated. First by translation: normalised cross-correlation of masked
images at all shifts at once by FFT (Padfield, Masked object registration in the Fourier domain,
IEEE TIP 21, 2012, equations 19 to 23, with means that are zero already). Then, for what is near
enough, by a rigid registration (SimpleITK). What is compared, and the thresholds, are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from scipy import fft, ndimage

from aslseg.data.orientation import axial_volume
from aslseg.data.volume import Float32, Mask, Shape3, Volume
from aslseg.events import Monitor

WINDOW_HU = (-40.0, 160.0)
"""Soft tissue, cut off at bone; what is darker (air, lung, fat) is no part of the body mask."""
EDGE_MM = 8.0
DETAIL_MM = 16.0
"""Structures coarser than this, which all bodies share, are taken out: standard deviation of a
Gaussian."""
LEAST_OVERLAP = 0.5
"""Share of the smaller body that has to lie within the larger one."""
LEAST_LITRES = 3.0
NEAR_ENOUGH = 0.2
"""Correlation after translation from which two bodies are registered."""
SAME_BODY = 0.48
"""Correlation after registration from which two volumes are taken to show one body. Set on 22 LiTS
volumes, where two pairs of one patient have 0.60 and 0.55 and all other pairs at most 0.33, and on
14 phantoms that are drawn from one plan, whose pairs have at most 0.45."""

_FINE_MM = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class BodyDigest:
    """A body on a coarse axial grid with voxels of `EDGE_MM`.

    Attributes:
        detail: (d, h, w) HU, without structures coarser than `DETAIL_MM`; 0 outside of the body.
        mask: (d, h, w), the body.
    """

    detail: Float32
    mask: Mask


@dataclass(frozen=True, slots=True)
class BodyMatch:
    """Two bodies laid over each other.

    Attributes:
        first: Name of the one.
        second: Name of the other.
        correlation: Pearson's, of their detail where they overlap, in [-1, 1].
        overlap: Share of the smaller body.
    """

    first: str
    second: str
    correlation: float
    overlap: float


def body_digest(volume: Volume) -> BodyDigest | str:
    """Reduce a CT volume to what is compared: some ten thousand numbers.

    Returns:
        The digest, or in a few words why there is none: the volume is no CT, or shows too little.
    """
    if volume.voxels.min() > WINDOW_HU[0]:
        return "it has no values as low as fat and air have in HU, so it is no CT"
    image, covered = _coarse(axial_volume(volume))
    mask = covered > 0.5
    litres = float(mask.sum()) * EDGE_MM**3 / 1e6
    if litres < LEAST_LITRES:
        return f"it shows less than {LEAST_LITRES:g} litres of a body"
    detail = image - _mean_around(image, mask)
    detail = np.where(mask, detail - detail[mask].mean(), 0.0).astype(np.float32)
    return BodyDigest(detail, mask)


def matching_bodies(
    digests: Mapping[str, BodyDigest],
    pairs: Sequence[tuple[str, str]],
    monitor: Monitor | None = None,
) -> list[BodyMatch]:
    """Find volumes that show one body.

    Args:
        digests: By name of the volume.
        pairs: Names of those to be compared.
        monitor: Told of the progress.

    Returns:
        Pairs whose correlation reaches `SAME_BODY`, the most alike first.
    """
    if not pairs:
        return []
    names = dict.fromkeys(name for pair in pairs for name in pair)
    shape = _common_shape([digests[name] for name in names])
    spectra = {name: _spectra(digests[name], shape) for name in names}
    found = []
    for first, second in (monitor or Monitor()).track(pairs, "comparing bodies"):
        correlation, shift = _best_shift(spectra[first], spectra[second], shape)
        if correlation >= NEAR_ENOUGH:
            pair = (digests[first], digests[second])
            found.append(BodyMatch(first, second, *_registered(*pair, shift)))
    same = [match for match in found if match.correlation >= SAME_BODY]
    return sorted(same, key=lambda match: -match.correlation)


def _coarse(volume: Volume) -> tuple[Float32, Float32]:
    """Return the windowed image and the share of body, averaged over voxels of `EDGE_MM`."""
    spacing = np.array(volume.geometry.spacing_mm)
    steps = np.maximum(1, (_FINE_MM / spacing).astype(int))  # every n-th voxel is enough
    voxels = volume.voxels[tuple(slice(step // 2, None, step) for step in steps)]
    low, high = WINDOW_HU
    image = np.clip(voxels, low, high).astype(np.float32)
    factors = EDGE_MM / (spacing * steps)
    shape = np.maximum(1, np.round(np.array(image.shape) / factors).astype(int))
    body = (image > low).astype(np.float32)
    return _resampled(image, factors, tuple(shape)), _resampled(body, factors, tuple(shape))


def _resampled(image: Float32, factors: NDArray[np.float64], shape: Shape3) -> Float32:
    smooth = ndimage.gaussian_filter(image, np.maximum(0.0, factors - 1.0) / 2.355)
    offset = (factors - 1.0) / 2.0
    return np.asarray(
        ndimage.affine_transform(smooth, factors, offset, shape, order=1, mode="nearest"),
        dtype=np.float32,
    )


def _mean_around(image: Float32, mask: Mask) -> Float32:
    """Return the mean of the body around each voxel."""
    weights = mask.astype(np.float32)
    sigma = DETAIL_MM / EDGE_MM
    near = np.maximum(ndimage.gaussian_filter(weights, sigma), 1e-3)
    return np.asarray(ndimage.gaussian_filter(image * weights, sigma) / near, dtype=np.float32)


def _common_shape(digests: Sequence[BodyDigest]) -> Shape3:
    """Return a size in which no shift that leaves half of an overlap wraps around."""
    largest = np.max([digest.mask.shape for digest in digests], axis=0)
    d, h, w = (fft.next_fast_len(int(1.5 * edge) + 1, real=True) for edge in largest)
    return d, h, w


@dataclass(frozen=True, slots=True, eq=False)
class _Spectra:
    detail: NDArray[np.complex64]
    squares: NDArray[np.complex64]
    mask: NDArray[np.complex64]
    voxels: int


def _spectra(digest: BodyDigest, shape: Shape3) -> _Spectra:
    return _Spectra(
        fft.rfftn(digest.detail, shape),
        fft.rfftn(digest.detail**2, shape),
        fft.rfftn(digest.mask.astype(np.float32), shape),
        int(digest.mask.sum()),
    )


def _best_shift(first: _Spectra, second: _Spectra, shape: Shape3) -> tuple[float, Shape3]:
    """Return the best correlation over all shifts, and by how many voxels `second` is shifted."""
    overlap = fft.irfftn(first.mask * second.mask.conj(), shape)
    product = fft.irfftn(first.detail * second.detail.conj(), shape)
    energies = [
        np.maximum(fft.irfftn(a * b.conj(), shape), 1e-6)
        for a, b in ((first.squares, second.mask), (first.mask, second.squares))
    ]
    enough = overlap > LEAST_OVERLAP * min(first.voxels, second.voxels)
    correlation = np.where(enough, product / np.sqrt(energies[0] * energies[1]), -1.0)
    best = np.unravel_index(int(correlation.argmax()), shape)
    d, h, w = (
        int(at) if at <= size // 2 else int(at) - size for at, size in zip(best, shape, strict=True)
    )
    return float(correlation[best]), (d, h, w)


def _registered(first: BodyDigest, second: BodyDigest, shift: Shape3) -> tuple[float, float]:
    """Register two bodies rigidly and return their correlation and their overlap."""
    fixed, moving = _image(first.detail), _image(second.detail)
    masks = [_image(digest.mask.astype(np.float32)) for digest in (first, second)]
    start = sitk.Euler3DTransform()
    start.SetCenter(tuple(EDGE_MM * (size - 1) / 2 for size in first.mask.shape[::-1]))
    start.SetTranslation(tuple(-EDGE_MM * step for step in shift[::-1]))
    registration = sitk.ImageRegistrationMethod()
    registration.SetNumberOfThreads(1)
    registration.SetMetricAsCorrelation()
    registration.SetMetricFixedMask(masks[0] > 0.5)
    registration.SetMetricMovingMask(masks[1] > 0.5)
    registration.SetInterpolator(sitk.sitkLinear)
    registration.SetOptimizerAsRegularStepGradientDescent(2.0, 0.2, 25)
    registration.SetOptimizerScalesFromPhysicalShift()
    registration.SetInitialTransform(start, inPlace=False)
    placed = registration.Execute(fixed, moving)
    there = [sitk.GetArrayFromImage(sitk.Resample(i, fixed, placed)) for i in (moving, masks[1])]
    both = first.mask & (there[1] > 0.5)
    overlap = float(both.sum()) / min(int(first.mask.sum()), int(second.mask.sum()))
    if overlap < LEAST_OVERLAP:
        return -1.0, overlap
    return float(np.corrcoef(first.detail[both], there[0][both])[0, 1]), overlap


def _image(array: NDArray[np.generic]) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((EDGE_MM,) * 3)
    return image
