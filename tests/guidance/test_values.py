"""What is no class of one classifier: any function of the image, and weighted sums."""

import numpy as np
import pytest
import torch
from pipelines import draw, make_guidance, make_pipeline
from torch import nn

from nrcg import EMA, ClassifierGuidance, ClassValue, ValueGuidance, WeightedSum
from nrcg.errors import NrcgError
from nrcg.guidance.gradient import image_gradient


def test_the_value_of_a_class_guides_as_classifier_guidance_does():
    guided = make_guidance(stabilizer=EMA(0.9), target=[0, 2])
    same = ValueGuidance(ClassValue(guided.classifier, [0, 2]), guided.scale, stabilizer=EMA(0.9))
    other = ValueGuidance(lambda x: ClassValue(guided.classifier, [0, 2])(x), guided.scale, stabilizer=EMA(0.9))
    expected = draw(make_pipeline(), guided).images
    assert torch.equal(draw(make_pipeline(), same).images, expected)
    assert torch.equal(draw(make_pipeline(), other).images, expected)


@pytest.mark.parametrize("on", ["xt", "x0"])
def test_any_function_of_the_image_guides(on):
    """Brightness as the value: guided samples are brighter, those guided by its negative darker."""
    means = {}
    for sign in (1, 0, -1):
        guidance = ValueGuidance(lambda x, sign=sign: sign * x.mean((1, 2, 3)), 400.0, on=on)
        means[sign] = draw(make_pipeline(), guidance).images.mean().item()
    assert means[-1] + 0.02 < means[0] < means[1] - 0.02


def test_a_sum_is_the_sum_of_gradients():
    """A and not B: two classifiers of their own targets, and a similarity to an embedding, one per sample."""
    torch.manual_seed(0)
    x, embedding = torch.randn(2, 3, 8, 8), torch.randn(2, 6)
    one, other, project = make_guidance().classifier, make_guidance(n_logits=1).classifier, torch.randn(192, 6)
    terms = [
        (1.0, ClassValue(one, [2, 0])),
        (-0.5, ClassValue(other, 1, "logit")),
        (3.0, lambda images: torch.cosine_similarity(images.flatten(1) @ project, embedding)),
    ]
    gradient, logits, *_ = image_gradient(WeightedSum(*terms), x)
    x.requires_grad_()
    values = one(x).log_softmax(1)[[0, 1], [2, 0]] - 0.5 * other(x)[:, 0]
    values = values + 3 * torch.cosine_similarity(x.flatten(1) @ project, embedding)
    (expected,) = torch.autograd.grad(values.sum(), x)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-7)
    assert logits is None


def test_weights_of_a_sum_stay_as_they_were():
    guided = make_guidance()
    guided.classifier.train()
    total = WeightedSum((1.0, guided.value), (0.5, lambda x: x.mean((1, 2, 3))))
    draw(make_pipeline(), ValueGuidance(total, 5.0))
    assert guided.classifier.training and all(p.requires_grad and p.grad is None for p in total.parameters())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda x: x.mean(), r"objective: <lambda> returned \(\) for 2 images; return one value per image, N"),
        (lambda x: x.flatten(1), r"objective: <lambda> returned \(2, 192\) for 2 images"),
        (lambda x: 3, "objective: <lambda> returned int"),
        (lambda x: x.detach().mean((1, 2, 3)), "objective: no gradient passes <lambda>"),
        (WeightedSum((1.0, lambda x: x)), r"objective: <lambda> returned \(2, 3, 8, 8\)"),
        (3, "guidance: value 3: must be a function from images to N values"),
    ],
)
def test_values_that_cannot_guide_are_one_line(value, message):
    with pytest.raises(NrcgError, match=message) as raised:
        draw(make_pipeline(), ValueGuidance(value, 1.0))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("terms", [(), (1.0,), ((1.0,),), (("a", abs),), ((float("nan"), abs),), ((1.0, 2.0),)])
def test_sums_that_cannot_be(terms):
    with pytest.raises(NrcgError, match="WeightedSum: give pairs"):
        WeightedSum(*terms)


def test_on_one_line_in_a_notebook():
    def brightness(images):
        return images.mean((1, 2, 3))

    assert repr(ValueGuidance(brightness, 2.0)) == ("ValueGuidance(value=brightness, scale=2.0)")
    text = repr(ClassifierGuidance(nn.Flatten(), np.arange(40), 2.0, objective="logit"))
    assert text.startswith("ClassifierGuidance(classifier=Flatten, target=[0, 1, 2, ") and "..." in text
    assert text.endswith("objective='logit')")
