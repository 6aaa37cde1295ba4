"""LinearNonlinear and ConvolutionalEncoder: what they compute, what they are charged for, what they refuse."""

from __future__ import annotations

import copy
import math
import subprocess
import sys

import pytest
import torch
from synicix_neurodata.models.convolutional import ConvolutionalEncoder
from synicix_neurodata.models.core import ConvolutionalCore
from synicix_neurodata.models.linear_nonlinear import LinearNonlinear
from synicix_neurodata.models.output import BehaviorGain
from synicix_neurodata.models.penalties import laplacian
from synicix_neurodata.models.readouts import FactorizedReadout, GaussianReadout

from synicix_core import ModelProvider
from synicix_core.errors import ParamsError
from synicix_core.parameters import check_params
from synicix_core.registry import Registered

IMAGES, NEURONS = (2, 9, 11), (6,)
MOVIES, COURSES = (2, 7, 9, 11), (6, 7)
SMALL = {"hidden_channels": 4, "input_kernel": 3, "hidden_kernel": 3, "l1_loss_lamda": 0.0, "laplace_loss_lamda": 0.0}
READOUTS = ["factorized", "gaussian", "full-gaussian"]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def linear(input_shape, output_shape, **params):
    """A LinearNonlinear whose filters are not zero any more."""
    model = LinearNonlinear(input_shape, output_shape, **params)
    torch.nn.init.normal_(model.filters, std=0.1)
    return model


def convolutional(input_shape, output_shape, **params):
    return ConvolutionalEncoder(input_shape, output_shape, **{**SMALL, **params})


BUILDERS = [
    linear,
    convolutional,
    *[lambda i, o, readout=readout, **p: convolutional(i, o, readout=readout, **p) for readout in READOUTS[1:]],
    lambda i, o, **p: convolutional(i, o, depth_separable=True, num_layers=3, batch_norm=False, **p),
]
every_model = pytest.mark.parametrize(
    "build", BUILDERS, ids=["linear", "factorized", "gaussian", "full-gaussian", "separable"]
)


# What goes in and comes out


@every_model
def test_images_give_a_response_of_each_neuron_and_every_weight_learns(build):
    model = build(IMAGES, NEURONS, nonnegative_output=True)
    output, penalty = model(torch.randn(5, *IMAGES))
    assert (output.shape, penalty.shape) == ((5, 6), ())
    assert (output > 0).all()
    output.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@every_model
def test_movies_give_a_course_of_any_length(build):
    model = build(MOVIES, COURSES, **({"history": 3} if build is linear else {"temporal_kernel": 3})).eval()
    for frames in (7, 2, 12):
        assert model(torch.randn(3, 2, frames, 9, 11))[0].shape == (3, 6, frames)


@every_model
def test_no_response_depends_on_later_frames_and_each_on_its_own(build):
    model = build(MOVIES, COURSES, **({"history": 3} if build is linear else {"temporal_kernel": 3})).eval()
    x = torch.randn(2, *MOVIES, requires_grad=True)
    for frame in range(7):
        (gradient,) = torch.autograd.grad(model(x)[0][:, :, frame].sum(), x)
        strength = gradient.abs().sum(dim=(0, 1, 3, 4))
        assert strength[frame + 1 :].sum() == 0
        assert strength[frame] > 0
        if frame:
            assert strength[frame - 1] > 0


def test_how_far_a_model_looks_back():
    def reach(model):
        x = torch.randn(1, *MOVIES, requires_grad=True)
        (gradient,) = torch.autograd.grad(model.eval()(x)[0][:, :, 6].sum(), x)
        return int((gradient.abs().sum(dim=(0, 1, 3, 4)) > 0).sum())

    assert [reach(linear(MOVIES, COURSES, history=history)) for history in (1, 4)] == [1, 4]
    assert [reach(convolutional(MOVIES, COURSES, temporal_kernel=frames)) for frames in (1, 2, 3)] == [1, 3, 5]
    assert reach(convolutional(MOVIES, COURSES, num_layers=1)) == 5


def test_a_linear_model_of_movies_is_its_filter_at_every_lag():
    model = linear(MOVIES, COURSES, history=3)
    x = torch.randn(2, *MOVIES)
    padded = torch.cat([torch.zeros(2, 2, 2, 9, 11), x], dim=2)
    expected = torch.stack(
        [torch.einsum("bcthw,ncthw->bn", padded[:, :, t : t + 3], model.filters) for t in range(7)], dim=2
    )
    torch.testing.assert_close(model(x)[0], expected + model.bias[:, None], rtol=1e-4, atol=1e-5)


def test_a_linear_model_of_images_is_its_filter():
    model = linear(IMAGES, NEURONS)
    x = torch.randn(4, *IMAGES)
    torch.testing.assert_close(model(x)[0], torch.einsum("bchw,nchw->bn", x, model.filters) + model.bias)


@every_model
def test_integer_pixels_are_cast(build):
    model = build(IMAGES, NEURONS).eval()
    pixels = torch.randint(0, 255, (3, *IMAGES), dtype=torch.uint8)
    torch.testing.assert_close(model(pixels)[0], model(pixels.float())[0])


@pytest.mark.parametrize(
    ("build", "expected"),
    [(linear, torch.nn.functional.softplus), (convolutional, lambda z: torch.nn.functional.elu(z) + 1)],
)
def test_automatic_nonlinearities(build, expected):
    x = torch.randn(8, *IMAGES)
    torch.manual_seed(1)
    counts = build(IMAGES, NEURONS, nonnegative_output=True).eval()
    torch.manual_seed(1)
    drives = build(IMAGES, NEURONS, nonnegative_output=False).eval()
    torch.testing.assert_close(counts(x)[0], expected(drives(x)[0]))
    torch.manual_seed(1)
    chosen = build(IMAGES, NEURONS, nonnegative_output=True, output_nonlinearity="exp").eval()
    torch.testing.assert_close(chosen(x)[0], drives(x)[0].exp())


def test_rates_begin_at_one():
    model = convolutional(IMAGES, (500,), nonnegative_output=True)
    assert model(torch.randn(64, *IMAGES))[0].mean().item() == pytest.approx(1, abs=0.05)


# Readouts


def test_the_factorized_readout_is_the_full_sum():
    readout = FactorizedReadout(3, 4, 5, 7)
    torch.nn.init.normal_(readout.bias)
    features = torch.randn(2, 6, 3, 4, 5)
    expected = torch.einsum("btchw,nhw,nc->bnt", features, readout.masks, readout.weights) + readout.bias[:, None]
    torch.testing.assert_close(readout(features), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("full", [False, True])
def test_the_gaussian_readout_interpolates_at_its_mean_place(full):
    readout = GaussianReadout(3, 7, full).eval()
    torch.nn.init.normal_(readout.places)
    torch.nn.init.normal_(readout.bias)
    features = torch.randn(2, 6, 3, 4, 5)
    expected = torch.empty(2, 7, 6)
    for neuron, (x, y) in enumerate(readout.mu.tolist()):
        column, row = (x + 1) / 2 * 4, (y + 1) / 2 * 3
        left, top = math.floor(column), math.floor(row)
        right_share, bottom_share = column - left, row - top
        value = (
            (1 - bottom_share) * (1 - right_share) * features[..., top, left]
            + (1 - bottom_share) * right_share * features[..., top, left + 1]
            + bottom_share * (1 - right_share) * features[..., top + 1, left]
            + bottom_share * right_share * features[..., top + 1, left + 1]
        )
        expected[:, neuron] = value @ readout.weights[neuron] + readout.bias[neuron]
    torch.testing.assert_close(readout(features), expected, rtol=1e-4, atol=1e-5)


def test_places_are_drawn_in_training_with_the_spread_of_each_neuron_and_shared_by_a_clip():
    # Features that tell their place: the drive is the x of the place, then its y.
    axis = torch.linspace(-1, 1, 21)
    features = torch.stack([axis.expand(21, 21), axis[:, None].expand(21, 21)]).expand(4000, 2, 2, 21, 21)
    readout = GaussianReadout(2, 2, full=True)
    with torch.no_grad():
        readout.places.copy_(torch.atanh(torch.tensor([[0.2, -0.1], [0.2, -0.1]])))
        readout.spread.copy_(torch.tensor([[[0.1, 0.0], [0.05, 0.02]]]))
        readout.weights.copy_(torch.eye(2))
        drives = readout(features)
    torch.testing.assert_close(drives[:, :, 0], drives[:, :, 1])
    x, y = drives[:, :, 0].T
    assert (x.mean().item(), y.mean().item()) == pytest.approx((0.2, -0.1), abs=0.01)
    assert (x.std().item(), y.std().item()) == pytest.approx((0.1, math.hypot(0.05, 0.02)), rel=0.06)
    assert torch.equal(readout.eval()(features), readout(features))


def test_drawing_uses_the_global_generator_so_that_a_restored_state_repeats_it():
    model = convolutional(IMAGES, NEURONS, readout="gaussian")
    x = torch.randn(3, *IMAGES)
    state = torch.get_rng_state()
    first, second = model(x)[0], model(x)[0]
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(first, model(x)[0])


@pytest.mark.parametrize("full", [False, True])
def test_a_gaussian_readout_finds_its_place(full):
    """One feature is a bump; the neuron that answers to it must end up at the bump, from the middle of the map."""
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 12), torch.linspace(-1, 1, 16), indexing="ij")
    bump = torch.exp(-((columns - 0.6) ** 2 + (rows + 0.5) ** 2) / 0.3)
    readout = GaussianReadout(1, 1, full)
    with torch.no_grad():
        readout.places.zero_()
        readout.weights.fill_(1)
    optimizer = torch.optim.Adam([readout.places], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        (-readout(bump.expand(32, 1, 1, 12, 16)).mean()).backward()
        optimizer.step()
    assert readout.mu[0].tolist() == pytest.approx([0.6, -0.5], abs=0.1)


_MANY_NEURONS = """
import resource, sys, torch
from synicix_neurodata.models.convolutional import ConvolutionalEncoder
torch.set_num_threads(1)
model = ConvolutionalEncoder((1, 36, 64), (8000,), hidden_channels=64, input_kernel=9, readout=sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
output, _ = model(torch.randn(8, 1, 36, 64))
output.mean().backward()
print(output.shape[1], (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10)
"""


@pytest.mark.parametrize("readout", ["factorized", "gaussian"])
def test_eight_thousand_neurons_fit(readout):
    code = [sys.executable, "-c", _MANY_NEURONS, readout]
    neurons, mebibytes = subprocess.run(code, capture_output=True, text=True, check=True, timeout=120).stdout.split()
    assert neurons == "8000"
    # (neurons, h, w, channels) alone would be 8000 * 28 * 56 * 64 numbers: 3062 MiB, and (batch, neurons, h, w) 383 MiB.
    scale = 1 if sys.platform == "linux" else 1024  # macOS counts bytes
    assert float(mebibytes) / scale < 400


# Penalties


def test_the_laplacian_of_known_shapes():
    assert laplacian(torch.full((2, 3, 4), 5.0)).abs().max() == 0
    rows = torch.arange(7.0)[:, None].expand(7, 6)
    torch.testing.assert_close(laplacian(rows**2 / 2)[1:-1], torch.ones(5, 6))
    impulse = torch.zeros(5, 5)
    impulse[2, 2] = 1
    torch.testing.assert_close(
        laplacian(impulse)[1:-1, 1:-1], torch.tensor([[0.25, 0.5, 0.25], [0.5, -3, 0.5], [0.25, 0.5, 0.25]])
    )
    assert laplacian(torch.randn(3, 1, 1)).abs().max() == 0


@pytest.mark.parametrize(("shape", "output"), [(IMAGES, NEURONS), (MOVIES, COURSES)])
def test_the_penalty_of_filters_is_its_closed_form_and_the_same_for_any_batch(shape, output):
    params = {"l1_loss_lamda": 0.3, "l2_loss_lamda": 0.7, "laplace_loss_lamda": 0.2}
    model = linear(shape, output, **params, history=2 if len(shape) == 4 else 1)
    w = model.filters
    expected = (0.3 * w.abs().sum() + 0.7 * w.square().sum() + 0.2 * laplacian(w).square().sum()) / 6
    for batch in (1, 5):
        torch.testing.assert_close(model(torch.randn(batch, *shape))[1], expected)


def test_a_neuron_is_charged_the_same_whoever_is_recorded_with_it():
    one, ten = (LinearNonlinear(IMAGES, (neurons,), l2_loss_lamda=0.5, laplace_loss_lamda=0.5) for neurons in (1, 10))
    with torch.no_grad():
        one.filters.normal_()
        ten.filters.copy_(one.filters.expand(10, -1, -1, -1))
    x = torch.randn(2, *IMAGES)
    torch.testing.assert_close(one(x)[1], ten(x)[1])


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("readout", READOUTS)
def test_the_penalty_of_a_convolutional_model_is_its_closed_form(readout, separable):
    strengths = {"l1_loss_lamda": 0.3, "laplace_loss_lamda": 0.2, "group_loss_lamda": 0.7}
    model = convolutional(IMAGES, NEURONS, num_layers=3, readout=readout, depth_separable=separable, **strengths)
    first, *others = model.core.layers
    smooth = laplacian(first.space.weight).square().sum() / first.space.weight.square().sum()
    groups = []
    for layer in others:
        filters = layer.mix.weight * layer.space.weight[:, 0] if separable else layer.space.weight
        groups.append(filters.square().sum(dim=(2, 3)).sqrt().mean())
    weights = model.readout.weights
    whole = weights[:, :, None, None] * model.readout.masks[:, None] if readout == "factorized" else weights
    expected = 0.3 * whole.abs().sum() / 6 + 0.2 * smooth + 0.7 * torch.stack(groups).mean()
    for batch in (2, 5):
        torch.testing.assert_close(model(torch.randn(batch, *IMAGES))[1], expected)


def test_one_layer_has_no_groups_and_dead_groups_have_a_gradient():
    assert convolutional(IMAGES, NEURONS, num_layers=1, group_loss_lamda=1.0)(torch.randn(2, *IMAGES))[1].item() == 0
    core = ConvolutionalCore(1, 3, 2, 3, 3, 1, True, False)
    torch.nn.init.zeros_(core.layers[1].space.weight)
    core.group_norm().backward()
    assert core.layers[1].space.weight.grad.isfinite().all()


@every_model
def test_without_penalty_nothing_of_it_is_in_the_graph(build):
    params = dict.fromkeys(["l1_loss_lamda", "laplace_loss_lamda"], 0.0)
    model = build(IMAGES, NEURONS, **params)
    penalty = model(torch.randn(2, *IMAGES))[1]
    assert not model.regularized
    assert penalty.item() == 0
    assert not penalty.requires_grad


# Behaviour

FULL = {"stimulus": IMAGES, "behavior": (3,), "pupil_center": (2,)}


def batch_of(shape, size=4):
    return {name: torch.randn(size, *part) for name, part in shape.items()}


@every_model
def test_behaviour_begins_without_effect_and_then_multiplies_the_rate(build):
    torch.manual_seed(1)
    alone = build(IMAGES, NEURONS, nonnegative_output=True).eval()
    torch.manual_seed(1)
    full = build(FULL, NEURONS, nonnegative_output=True).eval()
    x = batch_of(FULL)
    before = full(x)[0]
    torch.testing.assert_close(before, alone(x["stimulus"])[0])
    full(x)[0].sum().backward()
    assert (full.gain.weight.grad != 0).any(dim=0).all()
    with torch.no_grad():
        full.gain.weight[:, 0] = 0.1
    z = x["behavior"][:, :1]
    torch.testing.assert_close(full(x)[0], before * torch.exp(3 * torch.tanh(0.1 * z / 3)), rtol=1e-4, atol=1e-5)


def test_a_gain_is_bounded_whatever_comes_in():
    gain = BehaviorGain({"behavior": 2}, 3)
    torch.nn.init.constant_(gain.weight, 50)
    values = gain({"behavior": torch.tensor([[1e6, 1e6], [-1e6, -1e6], [0, 0]])}, None)
    assert values.isfinite().all()
    assert (values.min().item(), values.max().item()) == pytest.approx((math.exp(-3), math.exp(3)), rel=1e-4)


def test_behaviour_is_standardised_by_all_that_was_seen_in_training_also_one_trial_at_a_time():
    behavior = torch.randn(101, 2) * torch.tensor([30.0, 0.1]) + torch.tensor([500.0, -3.0])
    gain = BehaviorGain({"behavior": 2}, 1)
    for part in [behavior[:1], *behavior[1:].split(33)]:
        gain({"behavior": part}, None)
    torch.testing.assert_close(gain.mean, behavior.mean(0), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(gain.variance, behavior.var(0, correction=0), rtol=1e-3, atol=1e-4)
    seen = gain.mean.clone()
    gain.eval()({"behavior": torch.zeros(5, 2)}, None)
    assert torch.equal(gain.mean, seen)


def test_the_unit_of_behaviour_does_not_matter_and_what_never_changes_is_not_blown_up():
    metres = 3e-3 + 1e-4 * torch.randn(64, 1)
    gains = []
    for factor in (1.0, 1e6):
        gain = BehaviorGain({"behavior": 2}, 1)
        torch.nn.init.ones_(gain.weight)
        values = torch.cat([metres * factor, torch.full((64, 1), 61.7)], dim=1)
        gains.append(gain({"behavior": values}, None).detach())
    torch.testing.assert_close(gains[0], gains[1], rtol=1e-3, atol=1e-3)
    assert gains[0].log().std() == pytest.approx(1, abs=0.25)


def test_behaviour_of_a_movie_acts_frame_by_frame_and_what_has_no_frames_on_all():
    shape = {"stimulus": MOVIES, "behavior": (2, 7), "pupil_center": (2,)}
    model = linear(shape, COURSES, nonnegative_output=True).eval()
    torch.nn.init.normal_(model.gain.weight)
    x = batch_of(shape)
    base = model(x)[0]
    changed = {**x, "behavior": x["behavior"].clone()}
    changed["behavior"][:, :, 3] += 1
    difference = (model(changed)[0] - base).abs().sum(dim=(0, 1))
    assert difference[3] > 0
    assert difference.sum() == difference[3]
    moved = model({**x, "pupil_center": x["pupil_center"] + 1})[0]
    assert ((moved - base).abs().sum(dim=(0, 1)) > 0).all()


def test_the_order_of_named_inputs_does_not_matter():
    torch.manual_seed(1)
    model = convolutional(FULL, NEURONS).eval()
    torch.manual_seed(1)
    other = convolutional(dict(reversed(FULL.items())), NEURONS).eval()
    for each in (model, other):
        torch.manual_seed(2)
        torch.nn.init.normal_(each.gain.weight)
    x = batch_of(FULL)
    torch.testing.assert_close(model(x)[0], other(dict(reversed(x.items())))[0], rtol=0, atol=0)


# What training relies on


@every_model
@pytest.mark.parametrize(
    "shapes", [(FULL, NEURONS), ({"stimulus": MOVIES, "behavior": (2, 7)}, COURSES)], ids=["images", "movies"]
)
def test_under_autocast_the_output_is_float32_and_close(build, shapes):
    model = build(*shapes, l1_loss_lamda=0.1, nonnegative_output=True).eval()
    x = batch_of(shapes[0], 16)
    expected, expected_penalty = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, penalty = model(x)
    assert (output.dtype, penalty.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(output, expected, rtol=0.05, atol=0.02)
    torch.testing.assert_close(penalty, expected_penalty)
    assert not torch.equal(output, expected)


@every_model
def test_a_seed_decides_everything(build):
    def trained():
        torch.manual_seed(3)
        model = build(FULL, NEURONS, nonnegative_output=True)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            model(batch_of(FULL))[0].square().mean().backward()
            optimizer.step()
        return model.state_dict()

    first, second = trained(), trained()
    assert all(torch.equal(first[name], second[name]) for name in first)


@every_model
def test_a_state_dict_comes_back_as_plain_data(build, tmp_path):
    model = build(FULL, NEURONS, l1_loss_lamda=0.5, nonnegative_output=True)
    model(batch_of(FULL))
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other = build(FULL, NEURONS, nonnegative_output=True)
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    x = batch_of(FULL)
    torch.testing.assert_close(model.eval()(x)[0], other.eval()(x)[0], rtol=0, atol=0)
    assert not any("lamda" in name for name in model.state_dict())


@pytest.mark.parametrize("build", [linear, convolutional])
def test_models_that_differ_in_their_strengths_train_stacked_as_they_train_alone(build):
    models = [build(FULL, NEURONS, l1_loss_lamda=l1, laplace_loss_lamda=lap) for l1, lap in [(0.1, 0.0), (0.0, 0.2)]]
    params, buffers = torch.func.stack_module_state(models)
    skeleton = copy.deepcopy(models[0]).to("meta")
    x = batch_of(FULL)

    def loss(params, buffers):
        output, penalty = torch.func.functional_call(skeleton, (params, buffers), (x,))
        return output.square().mean() + penalty

    gradients = torch.func.vmap(torch.func.grad(loss))(params, buffers)
    for position, model in enumerate(models):
        output, penalty = model(x)
        (output.square().mean() + penalty).backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(gradients[name][position], parameter.grad, rtol=1e-4, atol=1e-6)


# What is refused


def paths(build):
    with pytest.raises(ParamsError) as caught:
        build()
    return [path for path, _ in caught.value.mistakes], str(caught.value)


def test_all_mistakes_of_a_linear_model_are_told_at_once():
    told, text = paths(
        lambda: LinearNonlinear((0, 9, 11), (6, 2), -1.0, math.nan, math.inf, history=0, output_nonlinearity="relu")
    )
    assert told == [
        "input_shape",
        "output_shape",
        "l1_loss_lamda",
        "l2_loss_lamda",
        "laplace_loss_lamda",
        "history",
        "output_nonlinearity",
    ]
    assert "softplus" in text


def test_all_mistakes_of_a_convolutional_model_are_told_at_once():
    told, text = paths(
        lambda: ConvolutionalEncoder(
            IMAGES,
            (0,),
            hidden_channels=0,
            num_layers=0,
            input_kernel=0,
            hidden_kernel=-1,
            temporal_kernel=0,
            readout="point",
            l1_loss_lamda=-1.0,
            laplace_loss_lamda=math.nan,
            group_loss_lamda=math.inf,
            output_nonlinearity="relu",
        )
    )
    assert told == [
        "output_shape",
        "hidden_channels",
        "num_layers",
        "input_kernel",
        "hidden_kernel",
        "temporal_kernel",
        "readout",
        "l1_loss_lamda",
        "laplace_loss_lamda",
        "group_loss_lamda",
        "output_nonlinearity",
    ]
    assert "full-gaussian" in text


@pytest.mark.parametrize("model", [LinearNonlinear, ConvolutionalEncoder])
@pytest.mark.parametrize(
    ("input_shape", "output_shape", "path", "words"),
    [
        ({"behavior": (3,), "pupil_center": (2,)}, (6,), "input_shape", "SimpleMLP"),
        ((6,), (1, 9, 11), "input_shape", "SimpleMLP"),
        ({}, (6,), "input_shape", "a stimulus"),
        ("1x9", (6,), "input_shape", "images"),
        (((1, 9, 11), (3,)), (6,), "input_shape", "images"),
        ({"stimulus": (9, 11)}, (6,), "input_shape.stimulus", "movies"),
        ({**FULL, "behavior": (3, 7)}, (6,), "input_shape.behavior", "(columns,)"),
        ({**FULL, "behavior": ()}, (6,), "input_shape.behavior", "(columns,)"),
        ({**FULL, "behavior": (0,)}, (6,), "input_shape.behavior", "at least one"),
        ({"stimulus": MOVIES, "behavior": (3, 8)}, COURSES, "input_shape.behavior", "7 frames"),
        (MOVIES, (6,), "output_shape", "(neurons, 7)"),
        (MOVIES, (6, 5), "output_shape", "(neurons, 7)"),
        (IMAGES, (6, 7), "output_shape", "(neurons,)"),
        (IMAGES, {"a": (6,)}, "output_shape", "(neurons,)"),
    ],
)
def test_shapes_that_are_no_recording_are_refused(model, input_shape, output_shape, path, words):
    told, text = paths(lambda: model(input_shape, output_shape))
    assert told == [path]
    assert words in text


@pytest.mark.parametrize(
    ("input_shape", "output_shape", "params", "path", "words"),
    [
        (IMAGES, NEURONS, {"input_kernel": 10}, "input_kernel", "9 x 11"),
        (IMAGES, NEURONS, {"hidden_kernel": 4}, "hidden_kernel", "3 x 5"),
        (IMAGES, NEURONS, {"temporal_kernel": 2}, "temporal_kernel", "no frames"),
        (MOVIES, COURSES, {"temporal_kernel": 8}, "temporal_kernel", "7 frames"),
    ],
)
def test_kernels_larger_than_what_they_see_are_refused(input_shape, output_shape, params, path, words):
    params = {"input_kernel": 7, "hidden_kernel": 3, **params}
    told, text = paths(lambda: ConvolutionalEncoder(input_shape, output_shape, **params))
    assert told == [path]
    assert words in text


@pytest.mark.parametrize(("shape", "output", "history"), [(IMAGES, NEURONS, 2), (MOVIES, COURSES, 8)])
def test_a_history_longer_than_the_stimulus_is_refused(shape, output, history):
    assert paths(lambda: LinearNonlinear(shape, output, history=history))[0] == ["history"]


def test_lists_serve_as_shapes_as_json_gives_them():
    assert convolutional(list(IMAGES), [6]).eval()(torch.randn(2, *IMAGES))[0].shape == (2, 6)


@pytest.mark.parametrize(
    ("target", "good", "bad"),
    [
        (
            "linear_nonlinear:LinearNonlinear",
            {"history": 3, "l2_loss_lamda": 1},
            {"history": 1.5, "lambda": 1, "output_nonlinearity": "relu"},
        ),
        (
            "convolutional:ConvolutionalEncoder",
            {"temporal_kernel": None, "readout": "gaussian"},
            {"readout": "point", "num_layers": "2", "batch_norm": 1},
        ),
    ],
)
def test_parameters_are_checked_from_json_before_a_model_is_built(target, good, bad):
    provider = ModelProvider(target.partition(":")[2], target=f"synicix_neurodata.models.{target}", summary="a model")
    registered = Registered(provider, "synicix-neurodata", "0", "neurodata")
    assert check_params(registered, good).mistakes == ()
    assert {path for path, _ in check_params(registered, bad).mistakes} == set(bad)
