"""Trainers of others: Lightning and accelerate take the stream, and a resumed run sees the batches of one that was not stopped."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch.utils.data import DataLoader  # noqa: E402

import tokengrid  # noqa: E402
from tokengrid.torch import TokenDataset, TokenStream  # noqa: E402


def expected_stream(path, batches):
    return np.stack([batch.tokens for batch in itertools.islice(tokengrid.Loader(path, 8, 5), batches)])


def make_model():
    torch.manual_seed(0)
    return torch.nn.Linear(16, 1)


def loss_of(model, tokens):
    return model(tokens.float() / 2**18).square().mean()


@pytest.mark.parametrize("workers", [(0, 0), (2, 0)])
def test_lightning_resumes(written, tmp_path, workers):
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")

    class Module(lightning.LightningModule):
        """As the documentation shows it."""

        def __init__(self, workers):
            super().__init__()
            self.model, self.workers = make_model(), workers
            self.seen, self.saved = [], None

        def train_dataloader(self):
            self.stream, self.taken = TokenStream(written[0], batch_size=8, seed=5), 0
            if self.saved is not None:
                self.stream.load_state_dict(self.saved)
            return DataLoader(self.stream, batch_size=None, num_workers=self.workers)

        def training_step(self, batch, _):
            self.taken += 1
            self.seen.append(batch.tokens)
            return loss_of(self.model, batch.tokens)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

        def on_save_checkpoint(self, checkpoint):
            checkpoint["stream"] = self.stream.state_dict(self.taken)

        def on_load_checkpoint(self, checkpoint):
            self.saved = checkpoint["stream"]

    def fit(steps, workers, checkpoint=None):
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = lightning.Trainer(max_steps=steps, accelerator="cpu", default_root_dir=tmp_path, **quiet)
        module = Module(workers)
        trainer.fit(module, ckpt_path=checkpoint, weights_only=False)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return module

    whole = fit(9, 0)
    assert np.array_equal(torch.stack(whole.seen), expected_stream(written[0], 9))
    first = fit(4, workers[0])
    second = fit(9, workers[1], tmp_path / "last.ckpt")
    assert np.array_equal(torch.stack(first.seen + second.seen), torch.stack(whole.seen))
    assert torch.equal(second.model.weight, whole.model.weight)


def test_lightning_takes_the_data_set(written, tmp_path):
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")
    seen = []

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = make_model()

        def training_step(self, batch, _):
            seen.append(batch.tokens)
            return loss_of(self.model, batch.tokens)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, **quiet)
    trainer.fit(Module(), DataLoader(TokenDataset(written[0]), batch_size=32))
    assert np.array_equal(torch.cat(seen), written[1])


def test_accelerate_resumes(written, tmp_path):
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")

    def run(steps, start=None):
        """As the documentation shows it: the stream is saved with the rest, and its loader is not prepared."""
        accelerator = accelerate.Accelerator(cpu=True)
        model = make_model()
        model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 0.1))
        stream = TokenStream(written[0], batch_size=8, seed=5)
        accelerator.register_for_checkpointing(stream)
        if start is not None:
            accelerator.load_state(start)
        seen = []
        for tokens, _ in itertools.islice(DataLoader(stream, batch_size=None), steps):
            seen.append(tokens)
            accelerator.backward(loss_of(model, tokens.to(accelerator.device)))
            optimizer.step()
            optimizer.zero_grad()
        accelerator.save_state(tmp_path / "state")
        return torch.stack(seen), accelerator.unwrap_model(model).weight

    whole, weight = run(9)
    assert np.array_equal(whole, expected_stream(written[0], 9))
    first, _ = run(4)
    second, resumed = run(5, tmp_path / "state")
    assert torch.equal(torch.cat([first, second]), whole) and torch.equal(resumed, weight)


def test_accelerate_prepares_the_data_set(written):
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    loader = accelerate.Accelerator(cpu=True).prepare(DataLoader(TokenDataset(written[0]), batch_size=32))
    assert np.array_equal(torch.cat([batch.tokens for batch in loader]), written[1])
