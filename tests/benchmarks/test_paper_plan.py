import pytest
import torch

from paper import chosen
from paper_networks import LEARNERS, PARTS, WIDTHS, scaled
from paper_plan import SCALES, Scale, Training, ablation, plan, scaling
from ptychow.errors import InputError
from ptychow.networks import build
from ptychow.networks.count import count
from ptychow.networks.wnet import GlobalResponseNorm, SqueezeExcite
from ptychow.training import steps_per_epoch


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_every_training_is_planned_once_and_has_its_own_name(scale):
    wanted = plan(scale)
    assert len({training.name for training in wanted}) == len(set(wanted)) == len(wanted)
    assert {training.network for training in wanted} <= LEARNERS.keys()


def test_the_headline_comes_first():
    names = [training.name for training in plan(SCALES["small"])]
    assert names[:4] == ["paper_ptychonn_0", "paper_w1_0", "paper_w3_0", "paper_ptychonn_1"]
    assert names.index("paper_w3_2") < names.index("ptychow_ptychonn_0") < names.index("paper_w2_0")
    assert names.index("paper_w2_2") < names.index("paper_w3_0_shuffled") < names.index("paper_w-2_0")


def test_the_issue_is_covered():
    wanted = set(plan(SCALES["small"]))
    for recipe in ("paper", "ptychow"):
        assert {Training(n, recipe, seed) for n in ("ptychonn", "w1", "w3") for seed in range(3)} <= wanted
    assert {Training("w2", "paper", seed) for seed in range(3)} | {Training("w2", "ptychow")} <= wanted
    assert len(ablation()) == 9 + len(PARTS)
    assert len(scaling()) >= 6
    for network in ("w1", "ptychonn"):
        assert len({t.lines for t in wanted if t.network == network and t.recipe == "paper"}) >= 5


@pytest.mark.parametrize("pairs", [290, 1449, 3623])
@pytest.mark.parametrize("recipe", ["paper", "ptychow"])
def test_all_trainings_take_the_same_number_of_steps(recipe, pairs):
    scale = SCALES["small"]
    settings = Training("w1", recipe).settings(scale, pairs)
    steps = settings.epochs * steps_per_epoch(pairs, settings)
    assert steps == pytest.approx(scale.steps, rel=0.05)


def test_networks_and_recipes_can_be_chosen_and_the_work_shared():
    scale = SCALES["small"]
    assert {t.recipe for t in plan(scale, recipes=["paper"])} == {"paper"}
    assert {t.network for t in plan(scale, networks=["w3"], recipes=["ptychow"])} == {"w3"}
    wanted = plan(scale)
    shares = [chosen(wanted, f"{k}/3", "*") for k in range(3)]
    assert sorted((t for share in shares for t in share), key=wanted.index) == wanted
    assert chosen(wanted, "0/1", "paper_w1_?") == [Training("w1", seed=seed) for seed in range(3)]


def test_the_scaling_rule_reaches_from_small_to_large_through_w1():
    sizes = [count(build("w1", **scaled(width))).parameters for width in WIDTHS]
    assert sizes == sorted(sizes)
    assert sizes[0] < 0.04e6 and sizes[-1] > 7e6
    assert {**build("w1").settings, **scaled(24)} == build("w1").settings


@pytest.mark.parametrize("part", PARTS)
def test_w1_without_a_part_is_w1_without_that_part(part):
    torch.manual_seed(0)
    network = build("w1-without", part=part).eval()
    kinds = [type(module) for module in network.modules()]
    assert (SqueezeExcite in kinds) == (part != "attention")
    assert (GlobalResponseNorm in kinds) == (part != "response-norm")
    again = build("w1-without", **network.settings)
    again.load_state_dict(network.state_dict())
    patterns = torch.rand(2, 1, 32, 32)
    assert all(torch.equal(a, b) for a, b in zip(network(patterns), again.eval()(patterns), strict=True))


def test_a_block_without_residual_does_not_pass_its_input_on():
    torch.manual_seed(0)
    blocks = [
        next(m for m in network.modules() if hasattr(m, "depthwise"))
        for network in (build("w1-without", part="residuals"), build("w1"))
    ]
    blocks[1].load_state_dict(blocks[0].state_dict())
    x = torch.rand(1, 24, 16, 16)
    assert torch.allclose(blocks[0](x) + x, blocks[1](x), atol=1e-6)


def test_a_part_that_w1_has_not_is_refused():
    with pytest.raises(InputError, match="no such part"):
        build("w1-without", part="wheels")


def test_the_full_scale_is_the_papers():
    full: Scale = SCALES["full"]
    assert (full.training_lines, full.epochs, full.batch_size) == ((0, 100), 60, 64)
    assert full.steps == 60 * (14490 // 64)
