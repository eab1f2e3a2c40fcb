"""Facts about models, as ``hypervlad info`` and pages list them."""

from support.commands import run

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
    printed = run("info", model).stdout
    for name, value in facts.items():
        assert f"{name}:" in printed
        assert value in printed


def test_facts_of_an_encoder_are_those_of_the_fit(tiny_encoder, texture_images):
    encoder = tiny_encoder.fit(texture_images[0])
    encoder.set_params(read_options={"page": 0, "scaling": "minmax"})
    facts = model_facts(encoder)
    assert facts["how files are read"].startswith("by default")
    facts = model_facts(encoder.fit(texture_images[0]))
    assert facts["how files are read"] == "page=0, scaling='minmax'"
