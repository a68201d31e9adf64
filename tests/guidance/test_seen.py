"""What the classifier sees, and what it is taken for: copies, the tempered objective, softplus for ReLU."""

import pytest
import torch
from pipelines import draw, generator, grad, make_classifier, make_guidance, make_pipeline
from torch import nn
from torch.nn.functional import softplus
from torchvision.transforms.functional import hflip, resized_crop

from nrcg import ClassifierGuidance, ClassValue
from nrcg.diffusion.steps import Level
from nrcg.errors import NrcgError
from nrcg.guidance import Augment, Noise, Recur, objectives
from nrcg.guidance.gradient import image_gradient

SHAPE = 2, 3, 8, 8


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


class Given:
    """Draws that are these."""

    def __init__(self, *rows):
        self.rows = rows

    def uniform(self, n, k):
        return torch.tensor(self.rows)[:n, None].expand(n, 2, k)

    def normal(self, n):
        return normal(n, *SHAPE)


LEVEL = Level(12, torch.tensor(0.64), torch.tensor(0.7))


def test_noisy_copies_are_the_image_and_noise():
    images = normal(*SHAPE)
    found = list(Noise(5, 0.5).draw(LEVEL, Given())(images))
    torch.testing.assert_close(torch.stack(found), images + 0.5 * 0.6 * normal(5, *SHAPE), rtol=0, atol=1e-6)


def test_copies_are_mirrored_moved_and_cropped():
    images = normal(*SHAPE).float()
    rows = [0.0, 0.5, 0.5, 0.7], [0.0, 0.5, 0.5, 0.2], [0.0, 1.0, 0.5, 0.7], [0.0, 0.5, 0.0, 0.7], [0.0, 1.0, 0.0, 0.2]
    same, mirrored, right, up, both = Augment(5, crop=1.0, shift=0.25).draw(LEVEL, Given(*rows))(images)
    columns, lines = [2, 3, 4, 5, 6, 7, 7, 7], [0, 0, 0, 1, 2, 3, 4, 5]
    torch.testing.assert_close(same, images, rtol=0, atol=1e-6)
    torch.testing.assert_close(mirrored, hflip(images), rtol=0, atol=1e-6)
    torch.testing.assert_close(right, images[..., columns], rtol=0, atol=1e-6)
    torch.testing.assert_close(up, images[..., lines, :], rtol=0, atol=1e-6)
    torch.testing.assert_close(both, hflip(images[..., lines, :][..., columns]), rtol=0, atol=1e-6)
    (unturned,) = Augment(1, crop=1.0, shift=0.0, flip=False).draw(LEVEL, Given(rows[1]))(images)
    torch.testing.assert_close(unturned, images, rtol=0, atol=1e-6)
    (half,) = Augment(1, crop=0.5, shift=0.25).draw(LEVEL, Given([0.0, 1.0, 0.0, 0.7]))(images)
    expected = resized_crop(images, top=0, left=4, height=4, width=4, size=[8, 8], antialias=False)
    torch.testing.assert_close(half[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("mean", ["value", "probability"])
@pytest.mark.parametrize("make", [Noise, Augment])
def test_the_value_of_copies_is_their_mean(make, mean):
    classifier, images = make_classifier(dtype=torch.float64), normal(*SHAPE).requires_grad_()
    copier = make(3, mean=mean).draw(LEVEL, Given(*torch.rand(3, 4, generator=generator()).tolist()))
    value = ClassValue(classifier, 1)
    found = image_gradient(value, images, copies=copier, mean=mean)
    values = torch.stack([classifier(copy).softmax(1)[:, 1].log() for copy in copier(images)])
    expected = values.mean(0) if mean == "value" else values.exp().mean(0).log()
    torch.testing.assert_close(found.values, expected.detach())
    torch.testing.assert_close(found.gradient, grad(expected, images))


@pytest.mark.parametrize(
    "slots",
    [{"copies": "noise"}, {"copies": "augment"}, {"copies": {"noise": {"mean": "value"}}, "recur": Recur(2)}],
)
def test_a_sample_is_the_same_in_any_batch(slots):
    pipe, guidance = make_pipeline(), make_guidance(**slots)
    together = draw(pipe, guidance, generator=[generator(0), generator(1)]).images
    for i in range(2):
        alone = draw(pipe, guidance, batch_size=1, generator=[generator(i)]).images
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-5)
    random = generator()
    draw(pipe, guidance, generator=random)
    draw(pipe, generator=(plain := generator()))
    assert torch.equal(random.get_state(), plain.get_state())  # the sampler's own draws alone


@pytest.mark.parametrize("n_logits", [1, 2, 5])
@pytest.mark.parametrize("target", [0, 1])
def test_corners_of_the_tempered_objective(n_logits, target):
    logits, targets = (5 * normal(4, n_logits)).requires_grad_(), torch.full((4,), target)
    tempered = objectives["tempered"]
    log_p = objectives["log_prob"](logits, targets)
    torch.testing.assert_close(tempered(logits, targets, 1.0, 1.0), log_p, rtol=0, atol=1e-12)
    slope = grad(tempered(logits, targets, 1.0, 0.0), logits)
    assert torch.equal(slope, grad(objectives["logit"](logits, targets), logits))
    if n_logits == 1:  # the target's logit is ±z, the other 0
        f_y = logits[:, 0] * (1 if target else -1)
        others = 1 + (0.4 * f_y).exp()
    else:
        f_y, others = logits[:, target], (0.4 * logits).exp().sum(1)
    torch.testing.assert_close(tempered(logits, targets, 0.7, 0.4), 0.7 * f_y - others.log())


SOFT = {  # each activation of softplus s_β in place of ReLU
    nn.ReLU: lambda x, s: s(x),
    nn.ReLU6: lambda x, s: s(x) - s(x - 6),
    nn.LeakyReLU: lambda x, s: s(x) - 0.01 * s(-x),
    nn.Hardsigmoid: lambda x, s: (s(x + 3) - s(x - 3)) / 6,
    nn.Hardswish: lambda x, s: x * (s(x + 3) - s(x - 3)) / 6,
}


def seen_as(classifier, beta):
    return ClassifierGuidance(classifier, 1, 5.0, softplus=beta).value.classifier


@pytest.mark.parametrize("kind", SOFT)
def test_an_activation_of_softplus_is_its_formula(kind):
    x = torch.linspace(-9, 9, 73, dtype=torch.float64, requires_grad=True)
    soft = seen_as(kind(), 3.0)(x)
    expected = SOFT[kind](x, lambda y: softplus(3.0 * y) / 3.0)
    torch.testing.assert_close(soft, expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(grad(soft, x), grad(expected, x), rtol=0, atol=1e-8)
    torch.testing.assert_close(seen_as(kind(), 1e6)(x), kind()(x), rtol=0, atol=1e-5)
    assert (soft - kind()(x)).abs().max() > 0.01


@pytest.mark.parametrize("inplace", [True, False])
def test_the_classifier_itself_is_left_as_it_was(inplace):
    shared = nn.ReLU(inplace=inplace)
    inner = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), shared)
    classifier = nn.Sequential(inner, nn.Conv2d(3, 3, 3, padding=1), shared, *make_classifier(activation=nn.ReLU6))
    modules, weights = [*classifier.modules()], {name: w.clone() for name, w in classifier.state_dict().items()}
    images = normal(*SHAPE).float()
    before, soft = classifier(images), seen_as(classifier, 3.0)
    draw(make_pipeline(), ClassifierGuidance(classifier, 1, 5.0, softplus=3.0))
    assert [*classifier.modules()] == modules and torch.equal(classifier(images), before)
    assert all(torch.equal(w, weights[name]) for name, w in classifier.state_dict().items())
    x = images
    for layer in (*inner, *list(classifier)[1:]):
        x = SOFT[type(layer)](x, lambda y: softplus(y, 3.0)) if type(layer) in SOFT else layer(x)
    torch.testing.assert_close(soft(images), x)  # a module in two places is soft in both


def test_nothing_to_make_smooth_is_one_line():
    with pytest.raises(NrcgError, match=r"^guidance: softplus: Sequential has no module among ReLU, ReLU6") as raised:
        make_guidance(softplus=3.0)
    assert "\n" not in str(raised.value)
