"""The figures of an evaluation: what they draw, measured by others; and that they always draw."""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image
from scipy.stats import entropy, norm
from score_tables import make_trials
from sklearn.metrics import roc_auc_score, roc_curve

from deepregions.evaluation.bootstrap import Estimate
from deepregions.evaluation.report.figures import comparisons, curves, style
from deepregions.evaluation.report.tables import Table
from deepregions.fusion.trials import Trials

HOSTILE = ["$\\frac{", "_hidden", "<b>&\"'", "a\nb\u202e\x1b", "中文", "x" * 300, ""]


def scored(count: int = 400, shift: float = 1.0, seed: int = 0, name: str = "a") -> Trials:
    random = np.random.default_rng(seed)
    fake = np.arange(count) % 2 == 1
    return make_trials(random.normal(0, 1, count) + np.where(fake, shift, -shift), fake, name)


@st.composite
def both_classes(draw: st.DrawFn) -> Trials:
    """Few scores, many of them equal, of both classes."""
    rows = draw(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=25))
    rows += [(draw(st.integers(-3, 3)), True), (draw(st.integers(-3, 3)), False)]
    return make_trials([r[0] for r in rows], [r[1] for r in rows])


def estimates(rows: Any, columns: Any, cells: Any, best: Any = "lower") -> Table:
    """A table of (value, low, high); of no value for NaN."""
    made = [
        [Estimate.none("why") if math.isnan(cell[0]) else Estimate(*cell, 9, 1.0) for cell in row]
        for row in cells
    ]
    return Table("t", rows, columns, made, best)


def line(figure: Figure, name: str) -> Line2D:
    (found,) = [each for each in figure.axes[0].lines if each.get_label() == name]
    return found


def points(drawn: Line2D) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    return np.asarray(drawn.get_xdata(), np.float64), np.asarray(drawn.get_ydata(), np.float64)


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for each in figure.legends for text in each.get_texts()]


def words(figure: Figure) -> str:
    return " ".join([text.get_text() for text in figure.axes[0].texts] + legend(figure))


@given(both_classes())
@settings(max_examples=25)
def test_roc_is_that_of_scikit_learn(data):
    figure = curves.roc([data], title="t")
    accused, found, _ = roc_curve(data.fake, data.log_odds, drop_intermediate=False)
    x, y = points(line(figure, "a"))
    np.testing.assert_allclose(x, accused)
    np.testing.assert_allclose(y, found)
    (said,) = legend(figure)
    name, _, area = said.rpartition(" ")
    assert name == "a: AUC"
    # Three decimals of an exact tie (.8125) round by the last bit, and theirs is a sum of trapezia.
    expected = roc_auc_score(data.fake, data.log_odds)
    assert float(area) == pytest.approx(expected, abs=0.5e-3 + 1e-9)


@given(both_classes())
@settings(max_examples=25)
def test_det_is_on_normal_deviates(data):
    figure = curves.det([data], title="t")
    accused, found, _ = roc_curve(data.fake, data.log_odds, drop_intermediate=False)
    x, y = points(line(figure, "a"))
    inside = (accused > 0) & (accused < 1)
    np.testing.assert_allclose(x[inside], norm.ppf(accused[inside]))
    inside = (found > 0) & (found < 1)
    np.testing.assert_allclose(y[inside], norm.ppf(1 - found[inside]), atol=1e-12)
    assert np.isfinite(x).all()
    assert np.isfinite(y).all()
    ticks = figure.axes[0].get_xticks()
    names = [float(text.get_text()) for text in figure.axes[0].get_xticklabels()]
    np.testing.assert_allclose(ticks, norm.ppf(np.array(names) / 100))
    assert {0.1, 1, 5, 20, 40} <= set(names)


def test_det_marks_the_equal_error_rate():
    data = scored(4000)
    figure = curves.det([data], title="t")
    accused, found, _ = roc_curve(data.fake, data.log_odds, drop_intermediate=False)
    nearest = np.argmin(np.abs(accused - (1 - found)))
    (x,), (y,) = points(line(figure, "EER of a"))
    assert x == y
    assert norm.cdf(x) == pytest.approx((accused + 1 - found)[nearest] / 2, abs=1e-3)
    (said,) = legend(figure)
    assert float(said.split()[2]) == pytest.approx(100 * norm.cdf(x), abs=0.051)
    perfect = curves.det([make_trials([0, 1], [False, True])], title="t")
    assert legend(perfect) == ["a: EER 0.0 % (beyond the axes)"]


def test_long_curves_make_no_large_files():
    figure = curves.roc([scored(400_000)], title="t")
    assert len(points(line(figure, "a"))[0]) > 300_000
    assert len(style.svg_text(figure)) < 100_000  # matplotlib leaves out what is not seen


def test_histogram_shows_all_of_each_class():
    data = scored(300)
    data.log_odds[0], data.log_odds[5] = np.nan, 1e9
    data.method[[number for number in range(300) if data.fake[number] and number % 3 == 0]] = "fwa"
    figure = curves.histogram(data, 0.25, title="t")
    axes = figure.axes[0]
    shares = [patch.get_data().values.sum() for patch in axes.patches]
    np.testing.assert_allclose(shares, 100)
    assert len(shares) == 4
    (mark,) = [each for each in axes.lines if each.get_linewidth() > 1]
    assert list(np.asarray(mark.get_xdata())) == [0.25, 0.25]
    assert f"swap ({(data.method == 'swap').sum()})" in legend(figure)
    assert "threshold development EER: 0.25" in legend(figure)
    assert "genuine (149 faces)" in legend(figure)
    assert "no verdict on 1 of 300 faces" in legend(figure)
    assert "all beyond" in axes.get_xlabel()
    one = curves.histogram(make_trials([1.0, 2.0], [True, True]), title="t")
    assert "no genuine faces" in legend(one)


@given(both_classes())
@settings(max_examples=15)
def test_tippett_is_the_share_above(data):
    llr, fake = data.log_odds, data.fake
    figure = curves.tippett(data, title="t")
    for drawn, rows in zip(figure.axes[0].lines[:2], (fake, ~fake), strict=True):
        x, y = points(drawn)
        assert drawn.get_drawstyle() == "steps-post"
        values = llr[rows] / np.log(10)
        # Where a value is drawn, what equals it is no longer above it, but for rounding.
        expected = [100 * np.mean(values > at + 1e-12) for at in x]
        np.testing.assert_allclose(y, expected, atol=1e-9)
    assert f"{100 * np.mean(llr[fake] < 0):.1f} % below 0" in legend(figure)[0]
    assert f"{100 * np.mean(llr[~fake] > 0):.1f} % above 0" in legend(figure)[1]


def cllr(llr: npt.NDArray[np.float64], fake: npt.NDArray[np.bool_]) -> float:
    """Brümmer and du Preez 2006, one by one."""
    missed = [math.log2(1 + math.exp(-value)) for value in llr[fake]]
    accused = [math.log2(1 + math.exp(value)) for value in llr[~fake]]
    return (sum(missed) / len(missed) + sum(accused) / len(accused)) / 2


@given(both_classes())
@settings(max_examples=15)
def test_cross_entropy_at_even_odds_is_cllr(data):
    figure = curves.ece_plot(data, title="t")
    (x, given_), (_, best), (_, nothing) = (points(each) for each in figure.axes[0].lines[:3])
    even, cost = len(x) // 2, cllr(data.log_odds, data.fake)
    assert x[even] == pytest.approx(0, abs=1e-12)
    assert given_[even] == pytest.approx(cost)
    assert legend(figure)[0] == f"as given: Cllr {cost:.3f}"
    share = 1 / (1 + 10.0**-x)
    np.testing.assert_allclose(nothing, entropy([share, 1 - share], base=2))
    # Nothing that rises with the ratios does better than PAV, doing nothing included.
    assert (best <= np.minimum(given_, nothing) + 1e-9).all()


@pytest.mark.parametrize(("slope", "limit"), [(1, 0.25), (3, 0.75)])
def test_calibrated_ratios_lie_on_the_diagonal(slope, limit):
    data = scored(100_000)
    llr = replace(data, log_odds=2 * slope * data.log_odds)  # of N(1, 1) against N(-1, 1)
    x, y = points(curves.calibration_curve(llr, title="t").axes[0].lines[2])
    middle = np.abs(x) < 1.5
    assert middle.sum() > 50
    np.testing.assert_allclose(slope * y[middle], x[middle], atol=limit)


def contrast(one: Any, other: Any) -> float:
    """WCAG 2.2's contrast ratio, from its text."""
    lights = []
    for colour in (one, other):
        parts = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)
        ]
        lights.append(0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize("best", ["higher", "lower"])
def test_matrix_writes_every_cell_readably(best):
    values = np.linspace(0.5, 1, 20).reshape(4, 5)
    values[1, 2] = np.nan
    cells: Any = [[(v, v - 0.02, v + 0.01) for v in row] for row in values]
    cells[0][0] = (0.5, None, None)
    names = ["A", "B", "C", "D", "E"]
    figure = comparisons.cross_matrix(estimates(names[:4], names, cells, best), title="t")
    filled = {
        (round(p.get_y() + 0.5), round(p.get_x() + 0.5)): p.get_facecolor()[:3]
        for p in figure.axes[0].patches
        if isinstance(p, Rectangle) and p.get_fill()
    }
    assert len(filled) == 20
    said = words(figure)
    for value in values[~np.isnan(values)][1:]:
        assert f"{100 * value:.1f} {100 * (value - 0.02):.1f}–{100 * (value + 0.01):.1f}" in said
    for text in figure.axes[0].texts:
        x, y = text.get_position()
        assert contrast(text.get_color(), filled[round(y), round(x)]) >= 4.5
    shades = [contrast(filled[at], "black") for at in ((0, 0), (3, 4))]
    assert (shades[1] > shades[0]) == (best == "higher")


NONE = (math.nan, math.nan, math.nan)


def test_robustness_over_levels():
    cells = [[(0.9, 0.8, 1.0), (0.5, 0.4, 0.6), NONE], [NONE] * 3]
    table = estimates(["a", "b"], ["as it is", "40", "23"], cells)
    figure = comparisons.robustness(table, title="t", axis_label="CRF")
    axes = figure.axes[0]
    x, y = points(line(figure, "a"))
    assert list(x) == [0, 1, 2]
    np.testing.assert_allclose(y, [0.9, 0.5, math.nan])
    edges = axes.collections[0].get_paths()[0].get_extents()
    np.testing.assert_allclose([edges.y0, edges.y1], [0.4, 1])
    assert legend(figure) == ["a", "b: not defined"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["as it is", "40", "23"]


def test_bars_have_their_heights_and_intervals():
    cells = [[(0.8, 0.7, 0.85), (0.4, 0.3, 0.5)], [NONE, NONE]]
    figure = comparisons.bars(estimates(["x", "y"], ["eyes", "nose"], cells), title="t")
    axes = figure.axes[0]
    bars = [p for p in axes.patches if isinstance(p, Rectangle)]
    assert sorted(p.get_y() + p.get_height() for p in bars) == pytest.approx([0.4, 0.8])
    ends = [path.vertices[:, 1] for each in axes.collections for path in each.get_paths()]
    assert sorted(tuple(np.sort(e)) for e in ends) == [
        pytest.approx((0.3, 0.5)), pytest.approx((0.7, 0.85)),
    ]  # fmt: skip
    assert [text.get_text() for text in axes.texts] == ["–", "–"]
    assert legend(figure) == ["x", "y"]
    assert "bars begin at 0.5" in axes.get_ylabel()


ODD: dict[str, tuple[list[float], list[int], str]] = {
    "one class": ([1, 2, 3, 3], [1, 1, 1, 1], "genuine"),
    "the other": ([1, 2, 3, 3], [0, 0, 0, 0], "no fake"),
    "nothing": ([], [], "not defined: nothing to judge"),
    "no verdict": ([math.nan] * 4, [0, 1, 0, 1], "not defined: no verdict"),
    "some NaN": ([1, math.nan, 3, 0], [0, 1, 1, 0], "no verdict on 1 of 4 faces"),
    "perfect": ([-1, -2, 3, 4], [0, 0, 1, 1], ""),
    "huge": ([-1e300, 1e300, 0], [0, 1, 1], ""),
}
OF_SCORES: dict[str, Callable[..., Figure]] = {
    "roc": lambda data, **other: curves.roc([data], **other),
    "det": lambda data, **other: curves.det([data], **other),
    "histogram": lambda data, **other: curves.histogram(data, 0.5, **other),
    "tippett": curves.tippett,
    "ece": curves.ece_plot,
    "calibration": curves.calibration_curve,
}


@pytest.mark.parametrize("case", ODD)
@pytest.mark.parametrize("name", OF_SCORES)
def test_odd_scores_give_a_figure_that_says_so(name, case):
    scores, fake, said = ODD[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = OF_SCORES[name](make_trials(scores, fake), title="t")
        svg = style.svg_text(figure)
    assert said in words(figure)
    assert said in svg
    if case in {"one class", "the other"} and name != "histogram":
        assert "not defined: " in words(figure)


def test_nothing_to_compare_gives_a_figure_that_says_so():
    for table in (
        estimates([], [], []),
        estimates(["a"], [], [[]]),
        estimates(["a"], ["b"], [[NONE]]),
    ):
        for figure in (
            comparisons.cross_matrix(table, title="t"),
            comparisons.robustness(table, title="t", axis_label="x"),
            comparisons.bars(table, title="t"),
            curves.roc([], title="t"),
        ):
            assert words(figure).startswith("not defined: no ")
            assert "not defined: no " in style.alt_text(figure)


def everything(names: list[str]) -> Iterator[Figure]:
    """Each kind of figure with these names in it."""
    systems = [scored(60, seed=i, name=name) for i, name in enumerate(names)]
    systems[-1].log_odds[::4] = np.nan  # no verdict
    yield curves.roc(systems, title=names[0])
    yield curves.det(systems, title=names[-1])
    data = scored(60)
    data.method[data.fake] = [names[i % len(names)] for i in range(30)]
    yield curves.histogram(data, 0.5, title=names[0])
    for draw in (curves.tippett, curves.ece_plot, curves.calibration_curve):
        yield draw(data, title=names[0])
    count = len(names)
    values = np.linspace(0.5, 1, count**2).reshape(count, count)
    table = estimates(names, names, [[(v, v - 0.1, v) for v in row] for row in values])
    yield comparisons.cross_matrix(table, title="EER")
    yield comparisons.bars(table, title=names[0])
    levels = ["as it is", "90", "70", "50", "30"]
    table = estimates(names, levels, [[(0.5, 0.4, 0.6)] * 5] * count)
    yield comparisons.robustness(table, title=names[0], axis_label="JPEG quality")


REALISTIC = [f"{d} {r}" for d in ("xception", "dsp-fwa") for r in ("entire", "eyes", "rest")]


LONG = ["tf_efficientnet_lite0 entire (dfdc)", "bundle default: logistic regression on log-odds"]


@pytest.mark.parametrize("names", [REALISTIC, ["FaceForensics++ c23", "self-made"], LONG])
def test_no_text_is_cut_off_or_on_another(names):
    for figure in everything(names):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()
        axes = figure.axes[0]
        ticks = [
            [text for place, text in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
             if text.get_text() and axis.get_view_interval().min() <= place + 1e-9
             and place - 1e-9 <= axis.get_view_interval().max()]
            for axis in (axes.xaxis, axes.yaxis)
        ]  # fmt: skip
        legends = [text for each in figure.legends for text in each.get_texts()]
        others = [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        others += [*ticks[0], *ticks[1], *legends, *figure.legends]
        for text in others:
            box = text.get_window_extent(renderer)
            assert box.x0 >= -1, text
            assert box.y0 >= -1, text
            assert box.x1 <= figure.bbox.x1 + 1, text
            assert box.y1 <= figure.bbox.y1 + 1, text
        for group in (*ticks, legends, axes.texts):
            level = [text for text in group if not text.get_rotation()]
            for one, other in combinations(level, 2):
                first, second = (each.get_window_extent(renderer) for each in (one, other))
                assert not first.padded(-1).overlaps(second.padded(-1)), (one, other)


def test_names_are_shown_as_they_are():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = [style.svg_text(figure) for figure in everything(HOSTILE)]
    for said in ("$\\frac{", "_hidden", "&lt;b&gt;&amp;", "a\\nb\\u202e\\x1b", "中文", "xxx…xxx"):
        assert said in drawn[0], said
    assert not any("<b>" in svg or "\x1b" in svg for svg in drawn)


def test_saved_figures_are_the_same_every_time(tmp_path):
    before = dict(mpl.rcParams)
    for place in ("one", "two"):
        # What users set for their own figures changes nothing.
        looks = {} if place == "one" else {"axes.facecolor": "red", "savefig.bbox": "tight"}
        with mpl.rc_context(looks):
            figure = curves.det([scored(200)], title="DET of A")
            style.save(figure, tmp_path / place / "deep", "det")
    png, svg = (tmp_path / "one" / "deep" / f"det.{kind}" for kind in ("png", "svg"))
    for path in (png, svg):
        assert path.read_bytes() == (tmp_path / "two" / "deep" / path.name).read_bytes()
        assert path.stat().st_mode & 0o044
    with Image.open(png) as image:
        assert image.width == pytest.approx(1040, abs=1)
        assert image.text == {"Title": "DET of A: a: EER 14.0 %"}
    text = svg.read_text(encoding="utf-8")
    assert "<title>DET of A: a: EER 14.0 %</title>" in text
    assert "dc:date" not in text
    assert ">genuine faces called fake (%)</text>" in text
    assert not plt.get_fignums()
    assert dict(mpl.rcParams) == before


def test_a_figure_is_saved_for_print_too(tmp_path):
    figure = curves.roc([scored()], title="t")
    for name in ("a", "b"):
        style.save(figure, tmp_path, name)
    pdf = (tmp_path / "a.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert pdf == (tmp_path / "b.pdf").read_bytes()
    assert b"/Type3" not in pdf  # publishers refuse such letters


def test_curves_and_bars_differ_without_colour():
    names = [f"s{number}" for number in range(8)]
    drawn = curves.roc([scored(seed=n, name=name) for n, name in enumerate(names)], title="t")
    lines = [line for line in drawn.axes[0].lines if line.get_label() in names]
    looks = {f"{line.get_linestyle()} {line._dash_pattern} {line.get_marker()}" for line in lines}
    assert len(looks) == len(lines) == len(names)
    table = estimates(names, ["g"], [[(0.6, 0.5, 0.7)]] * 8)
    bars = comparisons.bars(table, title="t").axes[0].patches
    assert len({bar.get_hatch() for bar in bars}) == len(names)
