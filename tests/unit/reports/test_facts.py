"""Facts about models, as ``hypervlad info`` and pages list them."""

from __future__ import annotations

import pytest
from support.commands import run

from hypervlad import MicrographClassifier
from hypervlad.models import BoostedSoftmaxClassifier
from hypervlad.results import model_facts


def test_facts_of_a_classifier(fitted, model):
    facts, result = model_facts(fitted), fitted.held_out_evaluation()
    right = 100 * result.accuracy
    assert facts["classes"] == "3: flat, rings, stripes"
    assert facts["trained on"] == "24 images"
    assert facts["image size"] == "16 x 16 pixels, stretched to a square"
    assert facts["how files are read"].startswith("by default")
    assert "logistic regression" in facts["classifier"]
    assert facts["images of the classes"] == "flat 8, rings 8, stripes 8 (in 24 groups)"
    assert facts["probabilities are for"].startswith("class shares halfway between those of the tr")
    assert facts["accuracy when held out"] == f"{right:.1f} % of 24 images"
    assert facts["balanced accuracy when held out"].endswith(" %")
    assert facts["network"] == "tiny"
    printed = run("info", model).stdout
    for name, value in facts.items():
        assert f"{name}:" in printed
        assert value in printed


def test_facts_follow_the_parameters(tiny_encoder, texture_images):
    encoder = tiny_encoder.set_params(blocks="joint", read_options={"page": 0})
    boosting = BoostedSoftmaxClassifier(init=None, random_state=0)
    model = MicrographClassifier(encoder, boosting=boosting, random_state=0).fit(*texture_images)
    facts = model_facts(model)
    assert facts["codewords"] == "4, common to all taps"
    assert facts["features of an image"] == "96 joint"
    assert facts["classifier"].endswith("rounds of boosted trees")
    assert "logistic" not in facts["classifier"]


def test_facts_of_rare_classes(tiny_encoder, texture_images):
    images, labels = texture_images
    chosen = [i for i, label in enumerate(labels) if label != "rings"]
    chosen.insert(3, list(labels).index("rings"))
    shares = {"flat": 0.5, "rings": 0.1, "stripes": 0.4}
    boosting = BoostedSoftmaxClassifier(prior=shares, class_weight="balanced")
    model = MicrographClassifier(tiny_encoder, boosting=boosting, random_state=0)
    with pytest.warns(UserWarning, match=r"only one or two different samples or groups: 'rings'"):
        model.fit([images[i] for i in chosen], [labels[i] for i in chosen])
    facts = model_facts(model)
    assert facts["images of the classes"] == "flat 8, rings 1, stripes 8 (in 17 groups)"
    assert facts["probabilities are for"] == (
        "the class shares flat 0.5, rings 0.1, stripes 0.4; class weights in training: balanced"
    )
    assert facts["accuracy when held out"].endswith(
        " of 16 images (2 of 3 classes tested, none of rings)"
    )


def test_facts_of_an_encoder_are_those_of_the_fit(tiny_encoder, texture_images):
    encoder = tiny_encoder.fit(texture_images[0])
    encoder.set_params(read_options={"page": 0, "scaling": "minmax"})
    facts = model_facts(encoder)
    assert "classes" not in facts
    assert facts["how files are read"].startswith("by default")
    facts = model_facts(encoder.fit(texture_images[0]))
    assert facts["how files are read"] == "page=0, scaling='minmax'"
