"""The Trainer with the mixin trains as the plain loop does, and resumes as if it had not stopped."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import noiserobust as nr
from noiserobust.errors import InvalidValueError, MissingDependencyError

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import transformers
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from noiserobust.integrations.huggingface import NoiseTrainerMixin

NOISE = nr.GaussianNoise(0.2)
METHODS = {
    "rwp": nr.RWP(NOISE),
    "rwp-draws": nr.RWP(NOISE, draws=2),
    "mixed": nr.RWP(NOISE, 0.5),
    "arwp": nr.ARWP(NOISE, eta=10.0),
    "mixed-arwp": nr.ARWP(NOISE, 0.5, eta=10.0),
    "sam": nr.SAM(0.5),
    "sam-each": nr.SAM(0.5, per_micro_batch=True),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
Batch = dict[str, Tensor]


class NoisyTrainer(NoiseTrainerMixin, transformers.Trainer):
    pass


def bert(**keywords: object) -> nn.Module:
    tiny = {"vocab_size": 16, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.3}
    config = BertConfig(**{**tiny, "intermediate_size": 8, "max_position_embeddings": 8, **no_dropout, **keywords})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForSequenceClassification(config)
    model.accepts_loss_kwargs = False  # its loss is a mean whatever it is told: micro-batches are to be averaged
    return model


def gpt2() -> nn.Module:
    config = GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    config.initializer_range = 0.3
    config.resid_pdrop = config.embd_pdrop = config.attn_pdrop = 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GPT2LMHeadModel(config)


def data(n: int = 16) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(0, 16, (n, 6), generator=generator)
    return [{"input_ids": row, "labels": row.sum() % 2} for row in words]


class Collator:
    """Keeps the batches that it makes."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def __call__(self, rows: list[Batch]) -> Batch:
        self.batches.append({key: torch.stack([row[key] for row in rows]) for key in rows[0]})
        return self.batches[-1]


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)


def trainer(
    model: nn.Module,
    folder: Path,
    method,
    settings: dict | None = None,
    kind: type[transformers.Trainer] = NoisyTrainer,
    **keywords: object,
) -> transformers.Trainer:
    quiet = {"report_to": "none", "disable_tqdm": True, "logging_strategy": "no", "save_strategy": "no"}
    steps = {"per_device_train_batch_size": 4, "max_steps": 4, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    args = transformers.TrainingArguments(str(folder), use_cpu=True, **{**quiet, **steps, **(settings or {})})
    defaults = {"train_dataset": data(), "data_collator": Collator(), "optimizers": (sgd(model), None)}
    return kind(model, args, method=method, **{**defaults, **keywords})


class CountingTrainer(NoisyTrainer):
    """Keeps the number of words that the loss is divided by."""

    def training_step(self, model: nn.Module, inputs: Batch, num_items_in_batch: Tensor | None = None) -> Tensor:
        self.counts = [*getattr(self, "counts", []), num_items_in_batch]
        return super().training_step(model, inputs, num_items_in_batch)


def plain_loop(
    model: nn.Module, method, batches: list[list[Batch]], counts: list[Tensor] | None = None, **keywords: object
) -> None:
    opt = nr.PerturbedOptimizer(sgd(model), method, model, **keywords)

    def closure_of(batch: Batch, share: float, **counted: Tensor) -> Callable[[], Tensor]:
        def closure() -> Tensor:
            loss = model(**batch, **counted).loss * share
            loss.backward()
            return loss

        return closure

    for number, group in enumerate(batches):
        share, counted = 1, {}
        if counts:  # the losses of micro-batches are shares of a sum, those of `step` are averaged
            share, counted = len(group), {"num_items_in_batch": counts[number * len(group)]}
        model.train()
        opt.step([closure_of(batch, share, **counted) for batch in group])


def groups(batches: list[Batch], size: int, steps: int = 4) -> list[list[Batch]]:
    return [batches[start : start + size] for start in range(0, steps * size, size)]


def assert_same(a: nn.Module, b: nn.Module) -> None:
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("accumulate", [1, 2])
@every_method
def test_the_trainer_trains_as_the_plain_loop(method, accumulate: int, tmp_path) -> None:
    model, expected, without = bert(), bert(), bert()
    schedule = nr.LinearRamp(start=0.2)  # over the whole training
    settings = {"gradient_accumulation_steps": accumulate}
    ours = trainer(model, tmp_path, method, settings, schedule=schedule, seed=3, train_seed=1)
    ours.train()
    batches = groups(ours.data_collator.batches, accumulate)
    plain_loop(expected, method, batches, schedule=schedule, total_steps=4, seed=3, train_seed=1)
    assert_same(model, expected)
    plain_loop(without, nr.Unperturbed(), batches)
    with pytest.raises(AssertionError):
        assert_same(model, without)


@pytest.mark.parametrize("averaged", [True, False])
@pytest.mark.slow
def test_without_noise_it_is_the_trainer_bit_for_bit(averaged: bool, tmp_path) -> None:
    class PlainTrainer(transformers.Trainer):
        def __init__(self, *args: object, method: None, **keywords: object) -> None:
            super().__init__(*args, **keywords)

    model, expected = bert(), bert()
    for own, kind, method in ((model, NoisyTrainer, nr.Unperturbed()), (expected, PlainTrainer, None)):
        own.accepts_loss_kwargs = not averaged
        trainer(own, tmp_path, method, {"gradient_accumulation_steps": 4}, kind=kind).train()
    assert all(torch.equal(x, y) for x, y in zip(model.parameters(), expected.parameters(), strict=True))


@pytest.mark.parametrize("method", [METHODS["mixed"], METHODS["sam"]], ids=["mixed", "sam"])
def test_only_the_gradient_that_updates_is_clipped(method, tmp_path) -> None:
    model, expected = bert(), bert()
    ours = trainer(model, tmp_path, method, {"max_grad_norm": 0.1})
    ours.train()
    plain_loop(expected, method, groups(ours.data_collator.batches, 1), max_grad_norm=0.1)
    assert_same(model, expected)


def test_the_last_step_of_an_epoch_may_have_fewer_micro_batches(tmp_path) -> None:
    model, expected = bert(), bert()
    method = METHODS["mixed-arwp"]
    ours = trainer(model, tmp_path, method, {"gradient_accumulation_steps": 3})
    ours.train()
    batches = ours.data_collator.batches
    plain_loop(expected, method, [batches[:3], batches[3:4], batches[4:7], batches[7:8]])
    assert_same(model, expected)


@pytest.mark.slow
def test_the_logged_loss_is_the_clean_one(tmp_path) -> None:
    losses = []
    for method in (nr.Unperturbed(), METHODS["mixed"], METHODS["sam"], METHODS["rwp"]):
        settings = {"logging_strategy": "steps", "logging_steps": 1, "max_steps": 1, "gradient_accumulation_steps": 2}
        ours = trainer(bert(), tmp_path, method, settings)
        ours.train()
        losses.append(ours.state.log_history[0]["loss"])
    assert losses[1] == losses[0]
    assert losses[2] == losses[0]
    assert losses[3] != losses[0]


@pytest.mark.parametrize("method", [METHODS["mixed-arwp"], METHODS["sam"]], ids=["arwp", "sam"])
@pytest.mark.slow
def test_a_resumed_training_goes_on_identically(method, tmp_path) -> None:
    settings = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6, "gradient_accumulation_steps": 2}
    keywords = {"schedule": nr.QuadraticRamp(5, start=0.1)}
    whole, resumed, without = (bert(hidden_dropout_prob=0.2) for _ in range(3))
    trainer(whole, tmp_path, method, settings, seed=5, **keywords).train()
    assert (tmp_path / "checkpoint-3" / "noise.pt").exists()
    half = str(tmp_path / "checkpoint-3")
    # The seed comes from the checkpoint.
    trainer(resumed, tmp_path, method, settings, **keywords).train(resume_from_checkpoint=half)
    assert all(torch.equal(x, y) for x, y in zip(whole.parameters(), resumed.parameters(), strict=True))
    if isinstance(method, nr.ARWP):
        (tmp_path / "checkpoint-3" / "noise.pt").unlink()
        trainer(without, tmp_path, method, settings, **keywords).train(resume_from_checkpoint=half)
        assert not all(torch.equal(x, y) for x, y in zip(whole.parameters(), without.parameters(), strict=True))


class Spy(transformers.TrainerCallback):
    """Keeps the weights that each event sees."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Tensor]] = []

    def look(self, event: str, model: nn.Module) -> None:
        self.seen.append((event, torch.cat([p.detach().flatten() for p in model.parameters()])))

    def on_step_begin(self, args, state, control, model, **rest) -> None:
        self.look("begin", model)

    def on_substep_end(self, args, state, control, model, **rest) -> None:
        self.look("substep", model)

    def on_pre_optimizer_step(self, args, state, control, model, **rest) -> None:
        self.look("backward", model)

    def on_step_end(self, args, state, control, model, **rest) -> None:
        self.look("end", model)

    def on_evaluate(self, args, state, control, model, **rest) -> None:
        self.look("evaluate", model)


def test_everything_but_the_passes_sees_clean_weights(tmp_path) -> None:
    spy, model = Spy(), bert()
    settings = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    settings |= {"gradient_accumulation_steps": 2}
    ours = trainer(model, tmp_path, METHODS["mixed"], settings, callbacks=[spy], eval_dataset=data(4))
    passes = []
    model.register_forward_pre_hook(lambda m, _: passes.append((m.training, m.classifier.weight.detach().clone())))
    ours.train()
    now, ends = spy.seen[0][1], []
    assert {event for event, _ in spy.seen} == {"begin", "substep", "backward", "end", "evaluate"}
    for event, seen in spy.seen:
        if event == "end":
            now = seen
            ends.append(seen)
        assert torch.equal(seen, now), event
    for step, end in enumerate(ends, start=1):
        saved = BertForSequenceClassification.from_pretrained(tmp_path / f"checkpoint-{step}")
        assert torch.equal(torch.cat([p.detach().flatten() for p in saved.parameters()]), end)
    in_training = [weight for training, weight in passes if training]
    assert len(in_training) == 4 * 2 * 2  # steps, micro-batches, passes
    assert torch.equal(in_training[0], in_training[1])  # one draw a step
    assert torch.equal(in_training[2], bert().classifier.weight)
    assert not torch.equal(in_training[0], in_training[2])
    assert torch.equal([weight for training, weight in passes if not training][-1], model.classifier.weight)


def test_an_exception_leaves_the_weights_as_they_were(tmp_path) -> None:
    model = bert()
    ours = trainer(model, tmp_path, METHODS["rwp"])

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    model.classifier.register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        ours.train()
    assert all(torch.equal(x, y) for x, y in zip(model.parameters(), bert().parameters(), strict=True))


@pytest.mark.parametrize("method", [METHODS["mixed"], METHODS["sam"]], ids=["mixed", "sam"])
def test_frozen_weights_stay_what_they_were(method, tmp_path) -> None:
    model, expected = bert(), bert()
    for own in (model, expected):
        own.bert.embeddings.requires_grad_(False)
    ours = trainer(model, tmp_path, method)
    ours.train()
    plain_loop(expected, method, groups(ours.data_collator.batches, 1))
    assert_same(model, expected)
    before = bert().bert.embeddings.word_embeddings.weight
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, before)


@pytest.mark.parametrize(
    "method", [METHODS["sam"], nr.ARWP(NOISE, 0.5, select=lambda n, m, w: w.ndim > 1)], ids=["sam", "m-arwp"]
)
def test_language_models_with_tied_embeddings_and_conv1d(method, tmp_path) -> None:
    rows = [{"input_ids": row["input_ids"], "labels": row["input_ids"].clone()} for row in data()]
    for number, row in enumerate(rows):
        row["labels"][: number % 4] = -100  # micro-batches have different numbers of words
    model, expected = gpt2(), gpt2()
    ours = trainer(model, tmp_path, method, {"gradient_accumulation_steps": 2}, CountingTrainer, train_dataset=rows)
    ours.train()
    plain_loop(expected, method, groups(ours.data_collator.batches, 2), ours.counts)
    assert_same(model, expected)
    assert model.lm_head.weight is model.transformer.wte.weight


def test_gpt2_is_trained_under_noise_on_all_of_its_layers(tmp_path) -> None:
    rows = [{"input_ids": row["input_ids"], "labels": row["input_ids"]} for row in data()]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="No noise falls on")
        trainer(gpt2(), tmp_path, METHODS["rwp"], train_dataset=rows).train()


def test_passes_can_share_dropout_masks(tmp_path) -> None:
    masks: list[Tensor] = []
    model = bert(hidden_dropout_prob=0.5)
    ours = trainer(model, tmp_path, nr.SAM(0.0), {"max_steps": 1}, same_dropout=True)
    model.bert.embeddings.dropout.register_forward_hook(lambda m, i, output: masks.append(output == 0))
    ours.train()
    assert torch.equal(*masks)


@pytest.mark.parametrize("keywords", [{"method": "rwp"}, {"schedule": 0.5}, {"seed": -1}, {"train_seed": 0.5}])
def test_wrong_arguments_are_refused(keywords: dict, tmp_path) -> None:
    with pytest.raises(InvalidValueError, match="Expected `"):
        trainer(bert(), tmp_path, **{"method": METHODS["rwp"], **keywords})


@pytest.fixture
def _without_the_module() -> Iterator[None]:
    name = "noiserobust.integrations.huggingface"
    module = sys.modules.pop(name)
    yield
    sys.modules[name] = module


@pytest.mark.usefixtures("_without_the_module")
@pytest.mark.parametrize("package", ["transformers", "accelerate"])
def test_without_the_packages_the_import_says_what_to_install(package: str, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf"{package}.*pip install 'noiserobust\[huggingface\]'"):
        import noiserobust.integrations.huggingface  # noqa: F401


@pytest.mark.slow
def test_noise_falls_on_the_layers_of_gpt2_by_output_channel() -> None:
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    layer = Conv1D(6, 4)  # 6 outputs, 4 inputs: y = x @ weight + bias
    with torch.no_grad():
        layer.weight.copy_(torch.randn(4, 6) * torch.arange(1, 7))
    linear = nn.Linear(4, 6)
    with torch.no_grad():
        linear.weight.copy_(layer.weight.T)
    (site,) = nr.find_sites(layer)
    noise = nr.GaussianNoise(0.1)
    strength = layer.weight.abs().amax(dim=0)
    assert (site.view.matrix(layer.weight) == linear.weight).all()
    found = torch.stack([noise.perturb(layer.weight, nr.Stream(k), site.view) - layer.weight for k in range(4000)])
    assert torch.allclose(found.std(dim=0), 0.1 * strength.expand(4, 6), rtol=0.06)
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=11, n_positions=5))
    names = [site.name for site in nr.find_sites(model)]
    assert sum("c_attn.weight" in n or "c_proj.weight" in n or "c_fc.weight" in n for n in names) == 4
