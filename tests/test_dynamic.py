"""Dynamic sparse training: counts stay exact, the right weights go and come, and a resumed run is the same run."""

from __future__ import annotations

import copy
import gc
import io
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from topognn.errors import CheckpointError, MaskError, SparsityError, TrainingError
from topognn.pruning import apply_masks, erk, uniform
from topognn.pruning.dynamic import DSR, DYNAMIC, ITOP, SET, SNFS, DropAndGrow, RigL


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 6, 3, bias=False), nn.Tanh(), nn.Flatten(), nn.Linear(24, 12), nn.Tanh())
    return nn.Sequential(*layers, nn.Linear(12, 5))  # 54 + 288 + 60 weights


def make_optimizer(net: nn.Module, name: str = "sgd") -> torch.optim.Optimizer:
    if name == "adam":
        return torch.optim.Adam(net.parameters(), lr=0.02)
    return torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)


def backward(net: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(16, 1, 4, 4, generator=generator), torch.randint(5, (16,), generator=generator)
    nn.functional.cross_entropy(net(x), y).backward()


def train(net: nn.Module, optimizer: torch.optim.Optimizer, scheduler: DropAndGrow, seeds: range) -> None:
    for seed in seeds:
        optimizer.zero_grad()
        backward(net, seed)
        optimizer.step()
        scheduler.step()


def counts(scheduler: DropAndGrow) -> list[int]:
    return [int(mask.sum()) for mask in scheduler.masks.values()]


def make(name: str, **options: Any) -> tuple[nn.Module, torch.optim.Optimizer, DropAndGrow]:
    net = small_net()
    optimizer = make_optimizer(net, options.pop("optimizer", "sgd"))
    options = {"total_steps": 20, "every": 2, "sparsity": 0.8} | options
    return net, optimizer, DYNAMIC[name](net, optimizer, **options)


# -- counts -------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(sorted(DYNAMIC)),
    st.sampled_from(["erk", "uniform", "er"]),
    st.sampled_from(["sgd", "adam"]),
    st.floats(0, 0.97),
    st.floats(0.01, 0.99),
    st.integers(1, 4),
    st.integers(3, 8),
    st.integers(0, 10**6),
)
@settings(max_examples=200, deadline=None)
def test_counts_are_exact_at_every_step_of_random_schedules(
    name: str, start: str, optimizer: str, sparsity: float, fraction: float, every: int, steps: int, seed: int
) -> None:
    options = {"start": start, "fraction": fraction, "every": every, "total_steps": steps, "seed": seed}
    if name == "dsr":
        options["threshold"] = fraction / 5  # high enough to drop
    net, optim, scheduler = make(name, optimizer=optimizer, sparsity=sparsity, **options)
    before, total = counts(scheduler), round((1 - sparsity) * 402)
    assert sum(before) == total
    for step in range(steps):
        old = scheduler.masks
        train(net, optim, scheduler, range(step, step + 1))
        assert sum(counts(scheduler)) == total
        if name in ("set", "rigl", "itop"):  # a layer at a time
            assert counts(scheduler) == before
        for key, mask in scheduler.masks.items():
            assert (net.get_parameter(key)[~mask] == 0).all()
            assert (mask is old[key]) or scheduler.is_update(step + 1)
            assert (scheduler.explored[key] | ~mask).all()
            for buffer in optim.state[net.get_parameter(key)].values():
                assert buffer.shape != mask.shape or (buffer[~mask] == 0).all()
    explored = scheduler.count_explored()
    assert list(explored.values()) == [int(mask.sum()) for mask in scheduler.explored.values()]
    assert total <= sum(explored.values()) <= 402


def test_starts_are_those_of_pruners_or_masks() -> None:
    for name, pruner in (("erk", erk), ("uniform", uniform)):
        net, _, scheduler = make("set", start=name, seed=4)
        expected = pruner(net, 0.8, seed=4)
        assert all(torch.equal(mask, expected[key]) for key, mask in scheduler.masks.items())
    masks = uniform(small_net(), 0.5, seed=9)
    _, _, scheduler = make("rigl", start=masks)
    assert all(torch.equal(mask, masks[key]) for key, mask in scheduler.masks.items())


# -- which weights go and come ------------------------------------------------------------------------------


def expected_by_layer(net: nn.Module, old: Tensor, key: str, rate: float, scores: Tensor) -> Tensor:
    """Drop the smallest and grow the highest, by sorting lists."""
    weight, kept = net.get_parameter(key).detach().abs().reshape(-1), old.reshape(-1)
    alive = sorted(kept.nonzero()[:, 0].tolist(), key=lambda k: (-weight[k].item(), k))
    count = int(rate * len(alive))
    survivors = alive[: len(alive) - count]
    others = sorted(set(range(len(weight))) - set(survivors), key=lambda k: (-scores.reshape(-1)[k].item(), k))
    mask = torch.zeros_like(kept)
    mask[survivors + others[:count]] = True
    return mask.view(old.shape)


def test_rigl_drops_the_smallest_and_grows_by_the_dense_gradient() -> None:
    net, optimizer, scheduler = make("rigl", every=1, fraction=0.4, total_steps=20)
    for step in range(1, 6):
        dense = copy.deepcopy(net)  # without hooks, so its gradients are of all weights
        backward(dense, step)
        old = scheduler.masks
        optimizer.zero_grad()
        backward(net, step)
        assert all((net.get_parameter(key).grad[~mask] == 0).all() for key, mask in old.items())
        optimizer.step()
        rate = scheduler.rate(step)
        assert rate == pytest.approx(0.2 * (1 + torch.tensor(step / 15 * torch.pi).cos().item()))
        expected = {
            key: expected_by_layer(net, old[key], key, rate, dense.get_parameter(key).grad.abs()) for key in old
        }
        assert scheduler.step()
        assert all(torch.equal(scheduler.masks[key], expected[key]) for key in old)
    train(net, optimizer, scheduler, range(6, 15))
    last = scheduler.masks
    train(net, optimizer, scheduler, range(15, 20))  # past three quarters nothing moves
    assert all(scheduler.masks[key] is last[key] for key in last)


def test_gradients_of_several_backward_passes_add_up() -> None:
    net, optimizer, scheduler = make("rigl", every=1, fraction=0.5)
    dense = copy.deepcopy(net)
    for seed in (1, 2, 3):
        backward(net, seed)
        backward(dense, seed)
    old = scheduler.masks
    optimizer.step()
    rate = scheduler.rate(1)
    scores = {key: dense.get_parameter(key).grad.abs() for key in old}
    expected = {key: expected_by_layer(net, old[key], key, rate, scores[key]) for key in old}
    scheduler.step()
    assert all(torch.equal(scheduler.masks[key], expected[key]) for key in old)


def test_set_drops_the_smallest_and_grows_elsewhere_at_random() -> None:
    found = []
    for seed in (1, 1, 2):
        net, optimizer, scheduler = make("set", every=1, seed=seed, start=erk(small_net(), 0.8))
        old = scheduler.masks
        train(net, optimizer, scheduler, range(1))
        found.append(torch.cat([mask.reshape(-1) for mask in scheduler.masks.values()]))
        for key, mask in scheduler.masks.items():
            weight = net.get_parameter(key).detach().abs()
            gone = old[key] & ~mask
            assert 0 < gone.sum() <= int(0.3 * old[key].sum())
            new = mask & ~old[key]
            assert (weight[new] == 0).all()
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_itop_is_set_or_rigl_in_another_rhythm_and_explores() -> None:
    same_start = erk(small_net(), 0.8)
    masks = []
    for cls, more in ((RigL, {"stop": 1.0}), (ITOP, {"growth": "gradient"})):
        net = small_net()
        optimizer = make_optimizer(net)
        options = {"total_steps": 12, "every": 2, "fraction": 0.5, "start": same_start} | more
        scheduler = cls(net, optimizer, 0.8, **options)  # type: ignore[arg-type]
        train(net, optimizer, scheduler, range(12))
        masks.append(scheduler.masks)
    assert all(torch.equal(masks[0][key], masks[1][key]) for key in masks[0])
    net, optimizer, scheduler = make("itop", every=1, total_steps=40)
    train(net, optimizer, scheduler, range(40))
    explored = sum(scheduler.count_explored().values())
    assert explored > 0.6 * 402 and explored >= 2 * sum(counts(scheduler))


def test_snfs_grows_where_the_momentum_is() -> None:
    net, optimizer, scheduler = make("snfs", every=3, fraction=0.5, momentum=0.8)
    means: dict[str, Tensor] = {
        key: torch.zeros_like(mask, dtype=torch.float32) for key, mask in scheduler.masks.items()
    }
    for step in range(3):
        dense = copy.deepcopy(net)
        backward(dense, step)
        for key in means:
            means[key] = 0.8 * means[key] + 0.2 * dense.get_parameter(key).grad
        old = scheduler.masks
        optimizer.zero_grad()
        backward(net, step)
        optimizer.step()
        if step < 2:
            scheduler.step()
    rate, survivors, shares = scheduler.rate(3), {}, []
    for key, mask in old.items():
        weight = net.get_parameter(key).detach().abs().masked_fill(~mask, -1)
        left = int(mask.sum()) - int(rate * int(mask.sum()))
        survivors[key] = weight >= weight.reshape(-1).sort(descending=True).values[left - 1]
        shares.append(means[key].abs()[survivors[key]].mean().item())
    gone = sum(int(mask.sum()) for mask in old.values()) - sum(int(mask.sum()) for mask in survivors.values())
    scheduler.step()
    for (key, mask), share in zip(scheduler.masks.items(), shares, strict=True):
        grown = mask & ~survivors[key]
        assert (survivors[key] & ~mask).sum() == 0
        assert int(grown.sum()) == pytest.approx(gone * share / sum(shares), abs=1)
        assert means[key].abs()[grown].min() >= means[key].abs()[~mask].max() - 1e-7


def test_dsr_drops_below_one_threshold_which_adapts() -> None:
    net, optimizer, scheduler = make("dsr", every=1, threshold=1e-6, fraction=0.2)
    assert isinstance(scheduler, DSR)
    train(net, optimizer, scheduler, range(3))
    assert scheduler.threshold == 8e-6  # too few were dropped
    scheduler.threshold = 0.15
    old = scheduler.masks
    optimizer.zero_grad()
    backward(net, 3)
    optimizer.step()
    size = {key: net.get_parameter(key).detach().abs() for key in old}
    stays = {key: old[key] & ((size[key] >= 0.15) | (size[key] == size[key].max())) for key in old}
    kept = {key: int(mask.sum()) for key, mask in stays.items()}
    gone = sum(int(mask.sum()) for mask in old.values()) - sum(kept.values())
    assert gone > 0.22 * sum(counts(scheduler))
    scheduler.step()
    assert scheduler.threshold == 0.075
    for key, mask in scheduler.masks.items():
        assert (stays[key] & ~mask).sum() == 0
        assert int((mask & ~stays[key]).sum()) == pytest.approx(gone * kept[key] / sum(kept.values()), abs=1)


def test_dsr_keeps_the_largest_weight_of_each_layer() -> None:
    net, optimizer, scheduler = make("dsr", every=1, threshold=1e3)
    train(net, optimizer, scheduler, range(1))
    assert min(counts(scheduler)) >= 1 and sum(counts(scheduler)) == round(0.2 * 402)


def test_growth_beyond_a_full_layer_goes_to_the_others() -> None:
    net, optimizer, scheduler = make("snfs", every=1, sparsity=0.1, fraction=0.9, start="uniform")
    train(net, optimizer, scheduler, range(8))
    assert sum(counts(scheduler)) == round(0.9 * 402)
    assert all(count <= mask.numel() for count, mask in zip(counts(scheduler), scheduler.masks.values(), strict=True))


# -- resuming -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DYNAMIC)
def test_a_resumed_run_ends_with_the_same_weights(name: str) -> None:
    options = {"threshold": 0.05} if name == "dsr" else {}
    net, optimizer, scheduler = make(name, **options)
    train(net, optimizer, scheduler, range(7))
    file = io.BytesIO()
    torch.save([net.state_dict(), optimizer.state_dict(), scheduler.state_dict()], file)
    train(net, optimizer, scheduler, range(7, 18))
    file.seek(0)
    states = torch.load(file, weights_only=True)
    other, optimizer2, scheduler2 = make(name, seed=77, **options)
    other.load_state_dict(states[0])
    optimizer2.load_state_dict(states[1])
    scheduler2.load_state_dict(states[2])
    train(other, optimizer2, scheduler2, range(7, 18))
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in net.state_dict().items())
    assert all(torch.equal(mask, scheduler2.masks[key]) for key, mask in scheduler.masks.items())
    assert scheduler.count_explored() == scheduler2.count_explored()
    assert counts(scheduler) != [54, 288, 60]


def test_tied_weights_have_one_mask() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    net[2].weight = net[0].weight
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    scheduler = RigL(net, optimizer, 0.5, total_steps=9, every=1)
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.randn(4, 8)).square().sum().backward()
        optimizer.step()
        scheduler.step()
    assert {key: int(mask.sum()) for key, mask in scheduler.masks.items()} == {"0.weight": 32}
    assert (net[2].weight != 0).sum() <= 32


def test_a_scheduler_that_is_gone_holds_nothing() -> None:
    net, optimizer, scheduler = make("rigl", every=1)
    alive = weakref.ref(scheduler)
    del scheduler
    gc.collect()
    assert alive() is None
    backward(net, 0)  # its hooks are still there, and do nothing
    second = SET(net, optimizer, 0.5, total_steps=4, every=1)
    train(net, optimizer, second, range(3))
    assert sum(counts(second)) == 201


# -- bad input ----------------------------------------------------------------------------------------------


def test_masks_changed_by_hand_are_noticed() -> None:
    net, optimizer, scheduler = make("set")
    scheduler.masks["0.weight"][0, 0, 0, 0] ^= True
    with pytest.raises(MaskError, match=r"the mask of '0.weight' was changed by hand since the last step"):
        scheduler.step()
    net, optimizer, scheduler = make("set")
    train(net, optimizer, scheduler, range(3))
    apply_masks(net, uniform(net, 0.5))
    with pytest.raises(MaskError, match=r"was changed by hand .* make a new scheduler with start=masks"):
        scheduler.step()


@pytest.mark.parametrize("name", ["rigl", "snfs"])
def test_gradients_that_are_missing_or_nan(name: str) -> None:
    net, _optimizer, scheduler = make(name, every=1)
    with pytest.raises(TrainingError, match=r"no gradient of '0.weight' has come since the last step: call step\(\)"):
        scheduler.step()
    net, optimizer, scheduler = make(name, every=1)
    net(torch.full((1, 1, 4, 4), torch.nan)).sum().backward()
    optimizer.step()
    with pytest.raises(TrainingError, match=r"weight '0.weight' is NaN or infinite: lower the learning rate"):
        scheduler.step()
    net, _, scheduler = make(name, every=1)
    with pytest.raises(TrainingError, match=r"gradients have been NaN or infinite for 100 steps"):
        for step in range(101):
            net(torch.full((1, 1, 4, 4), torch.nan)).sum().backward()  # and no step of the optimizer
            assert scheduler.step() is False and scheduler.steps == step + 1


def train_scaled(name: str, scale: float, steps: int, skipped: tuple[int, ...] = (), **options: Any) -> DropAndGrow:
    """Train with a GradScaler, whose scale changes at every step; what it leaves out has overflowed."""
    net, optimizer, scheduler = make(name, **options)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1)
    for step in range(steps):
        optimizer.zero_grad()
        if step in skipped:
            net(torch.full((1, 1, 4, 4), torch.inf)).sum().backward()
        generator = torch.Generator().manual_seed(step)
        x, y = torch.randn(16, 1, 4, 4, generator=generator), torch.randint(5, (16,), generator=generator)
        scaler.scale(nn.functional.cross_entropy(net(x), y)).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
    return scheduler


@pytest.mark.parametrize(("name", "options"), [("rigl", {}), ("snfs", {}), ("itop", {"growth": "gradient"})])
def test_a_gradient_scaler_changes_nothing(name: str, options: dict[str, Any]) -> None:
    net, optimizer, scheduler = make(name, **options)
    train(net, optimizer, scheduler, range(9))
    scaled = train_scaled(name, 2.0**12, 9, **options)  # powers of two, which are exact
    assert all(torch.equal(mask, scaled.masks[key]) for key, mask in scheduler.masks.items())


@pytest.mark.parametrize(("name", "options"), [("rigl", {}), ("snfs", {}), ("itop", {"growth": "gradient"})])
def test_an_update_waits_for_steps_that_a_gradient_scaler_leaves_out(name: str, options: dict[str, Any]) -> None:
    options = {"every": 4, **options}
    start = train_scaled(name, 2.0**12, 3, **options).masks
    waiting = train_scaled(name, 2.0**12, 5, (1, 3, 4), **options)
    assert all(torch.equal(mask, start[key]) for key, mask in waiting.masks.items())
    done = train_scaled(name, 2.0**12, 6, (1, 3, 4), **options)
    assert any(not torch.equal(mask, start[key]) for key, mask in done.masks.items())
    again = make(name, **options)[2]
    again.load_state_dict(waiting.state_dict())
    assert again._wants_gradients(6) and not again.is_update(6)  # what was waited for is waited for after a crash too
    for value in done.state_dict().get("means", {}).values():
        assert value.isfinite().all() and value.any()


def test_the_momentum_of_snfs_is_that_of_clipped_and_unscaled_gradients() -> None:
    net, _, scheduler = make("snfs", every=100, momentum=0.5)
    dense = copy.deepcopy(net)
    backward(dense, 0)
    backward(net, 0)
    for parameter in net.parameters():
        parameter.grad /= 8
    scheduler.step()
    for key, mean in scheduler.state_dict()["means"].items():
        torch.testing.assert_close(mean, dense.get_parameter(key).grad / 16)


def test_a_state_of_another_algorithm_or_with_other_settings() -> None:
    for name, options, other, changed, message in (
        ("set", {}, "snfs", {}, "this is the state of SET, and the scheduler is SNFS"),
        ("set", {}, "dsr", {}, "this is the state of SET, and the scheduler is DSR"),
        ("snfs", {}, "set", {}, "this is the state of SNFS, and the scheduler is SET"),
        ("rigl", {}, "rigl", {"every": 3}, "is the state of RigL with every=2, and the scheduler is RigL with every=3"),
        ("set", {}, "set", {"fraction": 0.25}, "SET with fraction=0.3, and the scheduler is SET with fraction=0.25"),
        ("rigl", {}, "rigl", {"total_steps": 30}, "RigL with total_steps=20"),
        ("rigl", {}, "rigl", {"stop": 0.5}, "RigL with stop=0.75"),
        ("itop", {}, "itop", {"growth": "gradient"}, "ITOP with growth='random'"),
        ("snfs", {}, "snfs", {"momentum": 0.5}, "SNFS with momentum=0.9"),
        ("dsr", {}, "dsr", {"tolerance": 0.2}, "DSR with tolerance=0.1"),
    ):
        state = make(name, **options)[2].state_dict()
        scheduler = make(other, **changed)[2]
        before = scheduler.masks
        with pytest.raises(CheckpointError, match=message):
            scheduler.load_state_dict(state)
        assert scheduler.masks.keys() == before.keys()
        assert all(scheduler.masks[key] is mask for key, mask in before.items())
    with pytest.raises(CheckpointError, match="no state of a scheduler of this version: 'scheduler' is missing"):
        scheduler.load_state_dict({})


def test_weights_that_cannot_be_trained() -> None:
    net = small_net()
    some = torch.optim.SGD(net[0].parameters(), lr=0.1)
    with pytest.raises(MaskError, match=r"weight '3.weight' is not in the optimizer"):
        SET(net, some, 0.5, total_steps=10)
    net[3].weight.requires_grad_(False)
    with pytest.raises(MaskError, match=r"weight '3.weight' is frozen \(1 of 3 are\)"):
        SNFS(net, make_optimizer(net), 0.5, total_steps=10)


def test_bad_numbers() -> None:
    for options, message in (
        ({"every": 0}, "every=0 and total_steps=20 are numbers of steps"),
        ({"fraction": 1.0}, "fraction=1.0 and stop=0.75 are shares"),
        ({"stop": 0.0}, "stop=0.0 are shares"),
        ({"sparsity": 1.0}, r"sparsity 1.0 is outside \[0, 1\)"),
        ({"sparsity": 0.999}, "none of|keep none"),
    ):
        with pytest.raises(SparsityError, match=message):
            make("rigl", **options)
    with pytest.raises(SparsityError, match="growth must be 'random' or 'gradient', not 'luck'"):
        make("itop", growth="luck")
    _, _, scheduler = make("set")
    with pytest.raises(MaskError, match=r"this state keeps 40 weights and the scheduler 80"):
        scheduler.load_state_dict(make("set", sparsity=0.9)[2].state_dict())


@pytest.mark.gpu
@pytest.mark.parametrize("name", DYNAMIC)
def test_on_a_gpu_counts_stay_and_growth_follows_the_seed(name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    net = small_net().cuda()
    optimizer = make_optimizer(net)
    scheduler = DYNAMIC[name](net, optimizer, 0.8, total_steps=20, every=2)
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        x, y = torch.randn(16, 1, 4, 4, generator=generator), torch.randint(5, (16,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x.cuda()), y.cuda()).backward()
        optimizer.step()
        scheduler.step()
        assert sum(counts(scheduler)) == 80
        assert all((net.get_parameter(key)[~mask] == 0).all() for key, mask in scheduler.masks.items())
    assert all(mask.is_cuda for mask in scheduler.masks.values())
