import matplotlib as mpl
import pytest


@pytest.fixture(autouse=True)
def headless():
    """Draw without a screen, and leave no figure and no setting behind."""
    import matplotlib.pyplot as plt

    with mpl.rc_context():
        plt.switch_backend("agg")
        yield
        plt.close("all")
