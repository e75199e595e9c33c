import pytest
import torch
from helpers import toy_training

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.engine.fork_calls import UPSTREAM_TRAIN, takes_forks_arguments, validation_losses
from maskrcnn_benchmark.engine.training_options import TrainingOptions


@takes_forks_arguments
def record(model, data_loader, optimizer, scheduler, checkpointer, device, checkpoint_period, arguments, options=None):
    return dict(locals())


def upstream_arguments(*opts):
    cfg = defaults.clone()
    cfg.merge_from_list(list(opts))
    return dict.fromkeys(UPSTREAM_TRAIN) | {
        "cfg": cfg,
        "device": "cpu",
        "test_period": 0,
        "arguments": {"iteration": 0},
    }


def test_eleven_arguments_use_the_settings_of_their_cfg():
    settings = ("SOLVER.ACCUMULATION_STEPS", 3, "SOLVER.CLIP_GRADIENTS", 2.5, "SOLVER.CHECKPOINT_MINUTES", 7.0)
    given = upstream_arguments(*settings, "DTYPE", "bfloat16")
    expected = TrainingOptions(torch.bfloat16, accumulation_steps=3, clip_gradients=2.5, checkpoint_minutes=7.0)
    for call in (record(*given.values()), record(**given)):
        assert call["options"] == expected
        assert call["device"] == "cpu" and call["arguments"] == {"iteration": 0} and call["checkpoint_period"] is None


def test_eight_arguments_use_the_accumulation_steps_of_the_loader():
    class Loader:
        class batch_sampler:
            accumulation_steps = 2

    given = ("model", Loader, "optimizer", "scheduler", "checkpointer", "cpu", 10, {"iteration": 0})
    assert record(*given)["options"] == TrainingOptions(accumulation_steps=2)
    own = TrainingOptions(accumulation_steps=4)
    assert record(*given, options=own)["options"] is own
    assert record(given[0], [], *given[2:])["options"] is None


def test_wrong_number_of_arguments_error_lists_both_signatures():
    with pytest.raises(TypeError, match="missing a required argument: 'arguments'; it takes .model, data_loader"):
        record(*list(upstream_arguments().values())[:10])


def test_validation_losses_do_not_change_batch_norm_statistics(rng_seed):
    model = toy_training.ToyDetector().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batches = list(toy_training.ToyLoader(3))
    meters = validation_losses(model, [batches[:1], batches[1:]], torch.device("cpu"))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        losses = [sum(model(images, targets).values()).item() for images, targets, _ in batches]
    assert meters.loss.count == 3 and meters.loss.global_avg == pytest.approx(sum(losses) / 3)
