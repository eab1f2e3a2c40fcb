from types import SimpleNamespace

import pytest

from hypervlad import MicrographClassifier
from hypervlad.models import BoostedSoftmaxClassifier
from hypervlad.results import model_facts
from hypervlad.results.reports.facts import page_facts, words_of


@pytest.fixture
def fitted(tiny_encoder, texture_images):
    def fit(boosting=None, **options):
        encoder = tiny_encoder.set_params(**options)
        return MicrographClassifier(encoder, boosting=boosting, random_state=0).fit(*texture_images)

    return fit


def test_facts_of_a_classifier(fitted):
    facts = model_facts(fitted())
    assert facts["classes"] == "3: flat, rings, stripes"
    assert facts["trained on"] == "24 images"
    assert facts["codewords"] == "4, common to all taps"
    assert facts["image size"] == "16 x 16 pixels, stretched to a square"
    assert facts["features of an image"] == "96 joint"
    assert facts["how files are read"].startswith("by default")
    assert "logistic regression" in facts["classifier"]
    assert facts["images of the classes"] == "flat 8, rings 8, stripes 8 (in 24 groups)"
    assert facts["probabilities are for"].startswith("class shares halfway between those of the tr")
    assert facts["accuracy when held out"].endswith(" % of 24 images")
    assert facts["balanced accuracy when held out"].endswith(" %")


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


def test_facts_follow_the_parameters(fitted):
    boosting = BoostedSoftmaxClassifier(init=None, random_state=0)
    facts = model_facts(fitted(boosting, blocks="joint", read_options={"page": 0}))
    assert facts["codewords"] == "4, common to all taps"
    assert facts["classifier"].endswith("rounds of boosted trees")
    assert "logistic" not in facts["classifier"]


def test_facts_of_an_encoder_are_those_of_the_fit(tiny_encoder, texture_images):
    images, _ = texture_images
    encoder = tiny_encoder.fit(images)
    encoder.set_params(read_options={"page": 0, "scaling": "minmax"})
    facts = model_facts(encoder)
    assert "classes" not in facts
    assert facts["network"] == "tiny"
    assert facts["how files are read"].startswith("by default")
    assert model_facts(encoder.fit(images))["how files are read"] == "page=0, scaling='minmax'"


def test_pages_have_further_facts_and_the_versions_of_libraries(tiny_encoder, texture_images):
    facts = page_facts(tiny_encoder.fit(texture_images[0]), {"seed": 3})
    assert (facts["network"], facts["seed"]) == ("tiny", 3)
    assert {"numpy", "torch", "scikit-learn"} <= set(facts["versions"].replace(",", "").split())


def test_facts_of_particles_keep_the_names_of_classes_and_files():
    encoder = SimpleNamespace(is_of_particles_=True, weights="/nets/my image net.pt")
    words = words_of(SimpleNamespace(encoder_=encoder, classes_=["image a"]), ["an image.png"])
    names = "of image a in an image.png by /nets/my image net.pt"
    assert (
        words(f"An image {names}, an image, images") == f"A particle {names}, a particle, particles"
    )
