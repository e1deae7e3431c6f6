import keras
import librosa
import numpy as np
import pytest

from lca_keras.base.errors import UserError
from lca_keras.base.sections import FeatureConfig
from lca_keras.explanation import saliency
from lca_keras.features.front_end import front_end_of
from lca_keras.models import CRNN, CRNNFGNL, CRNNM, LCAModel
from tests.models.test_networks import randomize

SMALL = {"clip_frames": 16, "filters": (2, 4, 4, 4), "gru_units": 3}
CRNN_SMALL = {**SMALL, "mel_bins": 128, "clip_frames": 32}


def randomized(model, seed=0):
    randomize(model, seed)
    return model


def network(**options):
    return randomized(CRNNFGNL(3, mel_bins=16, reduction=2, **SMALL, **options))


def clips(count, shape, seed=1):
    return np.random.default_rng(seed).normal(size=(count, *shape, 1)).astype("float32")


def by_finite_differences(maps, logits, classes, step=3e-2):
    """Grad-CAM from its definition: every map's cell is moved up and down."""
    gradients = np.zeros_like(maps)
    for cell in np.ndindex(maps.shape[1:]):
        moved = []
        for sign in (1, -1):
            shifted = maps.copy()
            shifted[(slice(None), *cell)] += sign * step
            moved.append(logits(shifted)[np.arange(len(classes)), classes])
        gradients[(slice(None), *cell)] = (moved[0] - moved[1]) / (2 * step)
    weights = gradients.mean(axis=(1, 2))
    return np.maximum((weights[:, None, None] * maps).sum(axis=-1), 0)


def check(cams, expected):
    assert expected.max() > 0  # A map of zeros would agree with anything.
    np.testing.assert_allclose(cams, expected, atol=0.02 * expected.max())


@pytest.mark.parametrize("layer", ["convolution", "fgnl"])
def test_grad_cam_agrees_with_finite_differences(layer):
    model, x, classes = network(), clips(3, (16, 16)), np.array([0, 1, 2])
    encoder = model.encoder
    names = ["block4", "block3"]
    inner = keras.Model(encoder.input, [encoder.get_layer(n).output for n in names])
    deep, shallow = (np.array(tensor) for tensor in inner(x))
    fgnl = encoder.get_layer("fgnl")
    attended = np.array(fgnl([deep, shallow]))

    def head(maps):
        return np.array(model.classifier(model.embed(maps)))

    cams = saliency.ClassActivation(model, layer)(x, classes)
    if layer == "fgnl":
        check(cams, by_finite_differences(attended, head, classes))
    else:

        def logits(maps):
            return head(fgnl([maps, shallow]))

        check(cams, by_finite_differences(deep, logits, classes))


def test_the_map_of_the_counterfactual_is_that_of_its_attention():
    model = LCAModel(network(), method="lca")
    randomized(model.cf_attention, seed=5)
    x, classes = clips(2, (16, 16)), np.array([2, 0])
    encoded = model.backbone.encode(x)
    attention = model.cf_attention(encoded["attended"])
    fused = model.backbone.fuse(encoded["features"], encoded["attended"], attention)

    def head(maps):
        return np.array(model.backbone.classifier(model.backbone.embed(maps)))

    activation = saliency.ClassActivation(model.backbone, "fgnl", model.cf_attention)
    expected = by_finite_differences(np.array(fused), head, classes)
    check(activation(x, classes), expected)
    main = saliency.ClassActivation(model.backbone, "fgnl")(x, classes)
    assert np.abs(main - expected).max() > 0.05 * expected.max()


@pytest.mark.parametrize("kind", [CRNN, CRNNM])
def test_networks_without_attention_have_maps_of_their_convolution(kind):
    model, classes = randomized(kind(3, **CRNN_SMALL)), np.array([1, 2])
    x = clips(2, (128, 32))
    if kind is CRNNM:
        x = {"mel_spectrogram": x, "melody": clips(2, (128, 32), seed=2)}
    maps = np.array(model.encode(x)["maps"])
    spectrogram = maps[..., :4]  # Of a melody's trunk, the other half.

    def logits(few):
        whole = np.concatenate([few, maps[..., 4:]], axis=-1)
        return np.array(model.classifier(model.embed(whole)))

    cams = saliency.ClassActivation(model)(x, classes)
    check(cams, by_finite_differences(spectrogram, logits, classes))
    with pytest.raises(UserError, match="has no layer 'fgnl'; it has convolution"):
        saliency.ClassActivation(model, "fgnl")


def test_maps_do_not_depend_on_the_batch():
    model, x = network(), clips(70, (16, 16))
    activation = saliency.ClassActivation(model)
    classes = np.arange(70) % 3
    together = activation(x, classes)
    alone = np.concatenate(
        [activation(x[i : i + 1], classes[i : i + 1]) for i in (0, 33, 69)]
    )
    np.testing.assert_allclose(together[[0, 33, 69]], alone, atol=1e-5)


def test_upsampling_keeps_values_and_places():
    maps = np.zeros((2, 4, 3), "float32")
    maps[0] = 2.0
    maps[1, 3, 0] = 1.0
    large = saliency.upsample(maps, 16, 9)
    assert large.shape == (2, 16, 9)
    np.testing.assert_allclose(large[0], 2.0)
    assert np.unravel_index(large[1].argmax(), (16, 9)) in [(14, 0), (15, 0), (14, 1)]


def test_shares():
    maps = np.zeros((3, 2, 4))
    maps[0] = 1.0
    maps[1, 0, 0] = 5.0
    cells = np.zeros((1, 2, 4), bool)
    cells[0, 0, :2] = True
    np.testing.assert_array_equal(saliency.share(maps, cells), [0.25, 1.0, np.nan])


def test_bands_and_voices():
    filters = librosa.filters.mel(sr=16000, n_fft=2048, n_mels=128, fmax=8000)
    peaks = librosa.fft_frequencies(sr=16000, n_fft=2048)[filters.argmax(axis=1)]
    centres = front_end_of(FeatureConfig()).frequencies
    assert np.abs(centres - peaks).max() < 16000 / 2048  # A bin of the transform.
    cells = saliency.band_cells(centres, (3000, 5000))
    assert cells.shape == (1, 128, 1)
    inside = centres[cells[0, :, 0]]
    assert inside.min() >= 3000
    assert inside.max() <= 5000
    assert cells.sum() == np.sum((centres >= 3000) & (centres <= 5000)) > 15
    vocals, band = np.array([[[3.0, -20.0]]]), np.array([[[2.0, -10.0]]])
    assert saliency.voice_cells(vocals, band).tolist() == [[[True, False]]]
