import pytest
import torch
from networks import SIZE, dsp_fwa, landmarks, member, picture, xception

from deepregions.errors import UsageError
from deepregions.faces.cropping import RegionCropper, resize
from deepregions.pixels.tensors import stack
from deepregions.system import System
from deepregions.types import Region


def test_each_network_gets_its_own_kind_of_crop():
    near, around, eyes = xception(), dsp_fwa(), xception()
    members = [member(near), member(around), member(eyes, Region.EYES)]
    members[0].resample, members[1].layout = "nearest", "context"
    system = System(members)
    image, points = picture()[None], landmarks()
    with torch.no_grad():
        output = system(image, points)
        for network, row, column, cropper in (
            (near, 0, 0, RegionCropper(SIZE, [Region.ENTIRE], resample="nearest")),
            (eyes, 0, 1, RegionCropper(SIZE, [Region.EYES])),
            (around, 1, 0, RegionCropper(SIZE, [Region.ENTIRE], "context")),
        ):
            crops, _ = cropper(image, points)
            torch.testing.assert_close(output.logits[:, row, column], network(crops[:, 0]))
        canvas = system.forward_segmented(image, Region.ENTIRE)
        torch.testing.assert_close(canvas.logits[:, 0, 0], near(resize(image, SIZE, "nearest")))
    assert system.rows == ("xception", "dsp-fwa")
    assert system.regions == (Region.ENTIRE, Region.EYES)
    assert output.valid.tolist() == [[[True, True], [True, False]]] and canvas.valid.sum() == 2
    torch.testing.assert_close(output.fused, output.logits[output.valid].mean()[None])


@pytest.mark.parametrize("layout", ["masked", "tight"])
def test_a_face_scores_the_same_beside_larger_pictures(layout):
    """Faces cut at each edge of their pictures, which are padded to the largest."""
    members = [member(xception()), member(dsp_fwa(), Region.EYES)]
    members[0].layout = layout
    system = System(members)
    pictures = [picture(150 + 30 * n, 260 - 40 * n, seed=n) for n in range(4)]
    at = [[20.0, 0.0], [0.0, 20.0], [100.0, 50.0], [0.0, 140.0]]
    points = landmarks(4, centre=60, scale=40) + torch.tensor(at)[:, None]
    image, extent = stack(pictures)
    with torch.inference_mode():
        together = system(image, points, extent)
        alone = [system(one[None], own[None]) for one, own in zip(pictures, points, strict=True)]
    for name in ("present", "valid"):
        assert getattr(together, name).tolist() == [getattr(x, name)[0].tolist() for x in alone]
    assert together.valid.any() and not together.valid.all()
    for name in ("logits", "fused"):
        expected = torch.cat([getattr(x, name) for x in alone])
        torch.testing.assert_close(
            getattr(together, name), expected, rtol=1e-4, atol=1e-4, equal_nan=True
        )


def test_threads_change_no_score():
    system, before = System([member(xception()), member(dsp_fwa(), Region.EYES)]), []
    given, threads = (picture()[None].repeat(3, 1, 1, 1), landmarks(3)), torch.get_num_threads()
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            with torch.inference_mode():
                before.append(system(*given).fused)
    finally:
        torch.set_num_threads(threads)
    for other in before[1:]:
        torch.testing.assert_close(other, before[0], rtol=1e-5, atol=1e-5)


def test_nothing_to_judge_and_no_number_give_no_score():
    broken, system = System([member(xception(bias=torch.nan))]), System([member(xception(1.0))])
    answers = broken(picture()[None], landmarks())
    outside = system(picture()[None], landmarks() + 5000)
    black = torch.zeros(1, 3, 50, 50, dtype=torch.uint8)
    assert answers.present.all()
    for output in (answers, outside, system.forward_segmented(black, Region.ENTIRE)):
        assert not output.valid.any()
        assert output.fused.isnan().all()


def test_rows_say_the_database_only_where_it_is_needed():
    members = [
        member(xception(), database="ffpp"),
        member(xception(), database="dfdc"),
        member(dsp_fwa(), database="ffpp"),
    ]
    assert System(members).rows == ("xception.ffpp", "xception.dfdc", "dsp-fwa")


def test_the_same_network_twice_is_refused():
    with pytest.raises(UsageError, match=r"two bundles hold xception_entire\.made"):
        System([member(xception()), member(xception())])
    with pytest.raises(UsageError, match="no network"):
        System([])


def test_a_region_that_may_not_be_judged_has_no_say():
    members = [member(xception(3.0)), member(dsp_fwa(-1.0), Region.MOUTH)]
    allowed = torch.ones(2, 5, dtype=torch.bool)
    allowed[0, 3] = False  # the first face's mouth
    allowed[1] = False
    image, points = picture()[None].expand(2, -1, -1, -1), landmarks(2)
    output = System(members)(image, points, allowed=allowed)
    assert output.present.tolist() == [[True, False], [False, False]]
    assert output.valid.sum() == 1
    assert output.fused[0].item() == pytest.approx(3.0)
    assert output.fused[1].isnan()
