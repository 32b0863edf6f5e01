"""Callbacks of Lightning and Hugging Face measure what a monitor measures; skipped where those are not installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import topognn
from topognn.monitoring.callbacks import hugging_face_callback, lightning_callback

NAMES = ["sink_nodes", "effective_density"]


def is_installed(*names: str) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in names)


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))


def expected(net: nn.Module, masks: dict[str, Tensor]) -> dict[str, float]:
    return topognn.topometrics(topognn.encode(net, (1, 4, 4), masks), NAMES).to_dict()


@pytest.mark.skipif(not is_installed("lightning"), reason="lightning is not installed")
@pytest.mark.filterwarnings("ignore")
def test_lightning(tmp_path: Path) -> None:
    import lightning.pytorch as pl
    from lightning.pytorch.loggers import CSVLogger

    class Model(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = make_net()

        def training_step(self, batch: Any, number: int) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    model = Model()
    masks = topognn.prune(model.net, "uniform", 0.5)
    topognn.apply_masks(model.net, masks)
    callback = lightning_callback("net", (1, 4, 4), NAMES, every=2)
    data = torch.utils.data.TensorDataset(torch.randn(48, 1, 4, 4), torch.arange(48) % 3)
    logger = CSVLogger(tmp_path)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[callback], logger=logger, accumulate_grad_batches=2, **quiet
    )
    trainer.fit(model, torch.utils.data.DataLoader(data, 6))
    assert callback.monitor.history.steps == [2, 4]
    assert callback.monitor.history[0].to_dict() == expected(model.net, masks)
    assert "topo/effective_density" in (Path(logger.log_dir) / "metrics.csv").read_text()


@pytest.mark.skipif(not is_installed("transformers", "accelerate"), reason="transformers[torch] is not installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_first", [True, False])
def test_hugging_face(is_first: bool, tmp_path: Path) -> None:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Reporter(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.seen: list[str] = []

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **given: Any) -> None:
            self.seen += [f"{name} at {state.global_step}" for name in logs if name.startswith("topo/sink")]

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = make_net()

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.net(x)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    model = Model()
    masks = topognn.prune(model.net, "uniform", 0.5)
    topognn.apply_masks(model.net, masks)
    callback = hugging_face_callback("net", (1, 4, 4), NAMES, every=2)
    data = [{"x": torch.randn(1, 4, 4), "labels": torch.tensor(k % 3)} for k in range(24)]
    arguments = TrainingArguments(
        *(str(tmp_path),),
        per_device_train_batch_size=4,
        num_train_epochs=1,
        logging_steps=3,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    reporter = Reporter()
    trainer = Trainer(model, arguments, train_dataset=data, callbacks=[reporter, *([] if is_first else [callback])])
    if is_first:  # as the docstring says
        trainer.callback_handler.callbacks.insert(0, callback)
    trainer.train()
    assert reporter.seen == (["topo/sink_nodes at 3", "topo/sink_nodes at 6"] if is_first else [])
    assert callback.monitor.history.steps == [2, 4, 6]
    assert callback.monitor.history[0].to_dict() == expected(model.net, masks)
    logged = [entry for entry in trainer.state.log_history if "topo/sink_nodes" in entry]
    assert [entry["step"] for entry in logged] == [3, 6]


def test_trainers_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning.pytorch.callbacks", None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'topognn\[lightning\]'"):
        lightning_callback("net", (1, 4, 4))
    with pytest.raises(ImportError, match=r"pip install 'topognn\[hugging-face\]'"):
        hugging_face_callback("net", (1, 4, 4))
