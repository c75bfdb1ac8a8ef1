"""Forecasts moving patterns, as rain is nowcast from radar pictures: a ConvLSTM trained by Spark jobs.

python examples/nowcasting.py            on this machine
spark-submit examples/nowcasting.py      on a cluster

Soft spots drift over a small field, each with its own speed, and grow or fade. From six pictures the network forecasts
the next six: one ConvLSTM reads, another, which begins in its state, goes on (Shi et al. 2015, Convolutional LSTM
Network). Its error is compared with persistence, the forecast that nothing changes.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import torch
from torch import nn

from sparkdl import Trainer

PAST, FUTURE, SIZE = 6, 6, 24


class ConvLSTMCell(nn.Module):
    """An LSTM cell whose matrix products are convolutions: its state is a map."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Conv2d(inputs + hidden, 4 * hidden, 3, padding=1)

    def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x: [rows, inputs, size, size]; h, c: [rows, hidden, size, size]."""
        let_in, forget, let_out, new = self.gates(torch.cat([x, h], dim=1)).chunk(4, dim=1)
        c = torch.sigmoid(forget) * c + torch.sigmoid(let_in) * torch.tanh(new)
        return torch.sigmoid(let_out) * torch.tanh(c), c


class Nowcaster(nn.Module):
    """Pictures [rows, 6, 24, 24] to the next ones, the same shape: each is the last one and what the decoder adds."""

    def __init__(self, hidden: int):
        super().__init__()
        self.encoder, self.decoder = ConvLSTMCell(1, hidden), ConvLSTMCell(1, hidden)
        self.change = nn.Conv2d(hidden, 1, 1)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Reads all, then forecasts one by one, each from its own forecast before."""
        h = pictures.new_zeros(len(pictures), self.encoder.hidden, *pictures.shape[2:])
        c = torch.zeros_like(h)
        for time in range(pictures.shape[1]):
            h, c = self.encoder(pictures[:, time : time + 1], h, c)
        last, forecast = pictures[:, -1:], []
        for _ in range(FUTURE):
            h, c = self.decoder(last, h, c)
            last = last + self.change(h)
            forecast.append(last)
        return torch.cat(forecast, dim=1)


def patterns(count: int, seed: int) -> np.ndarray:
    """float32 [count, 12, 24, 24]: three spots each, between 0 and 1."""
    rng = np.random.default_rng(seed)
    place, speed = rng.uniform(0, SIZE, (2, count, 3, 1)), rng.uniform(-1.2, 1.2, (2, count, 3, 1))
    width, growth = rng.uniform(1.5, 3.0, (count, 3, 1)), rng.uniform(0.92, 1.08, (count, 3, 1))
    time, axis = np.arange(PAST + FUTURE), np.arange(SIZE)
    at = (place + speed * time) % SIZE  # [2, count, 3, time]
    away = np.abs(axis - at[..., None])
    away = np.minimum(away, SIZE - away)  # the field's edges meet
    profile = np.exp(-0.5 * (away / width[..., None]) ** 2)
    strength = 0.5 * growth**time
    pictures = np.einsum("nst,nsty,nstx->ntyx", strength, profile[0], profile[1])
    return np.clip(pictures, 0, 1).astype(np.float32)


def main() -> None:
    """Trains, evaluates, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--sequences", type=int, default=640, help="to learn from; a fifth as many test (%(default)s)")
    parser.add_argument("--hidden", type=int, default=16, help="channels of the state (%(default)s)")
    parser.add_argument("--replicas", type=int, help="default: one for each task slot")
    arguments = parser.parse_args()

    train, test = patterns(arguments.sequences, seed=0), patterns(max(10, arguments.sequences // 5), seed=1)
    total_steps = arguments.epochs * -(-len(train) // 32)
    trainer = Trainer(
        partial(Nowcaster, arguments.hidden),
        loss=nn.MSELoss(),
        optimizer=torch.optim.Adam,
        scheduler=partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=1e-2, total_steps=total_steps),
        feature_cols="past",
        label_col="future",
        batch_size=32,
        replicas=arguments.replicas,
        clip_norm=1.0,
    )
    trainer.fit({"past": train[:, :PAST], "future": train[:, PAST:]}, epochs=arguments.epochs)
    error = trainer.evaluate({"past": test[:, :PAST], "future": test[:, PAST:]})["loss"]
    still = float(np.mean((test[:, PAST:] - test[:, PAST - 1 : PAST]) ** 2))
    with torch.no_grad():
        forecast = trainer.model(torch.from_numpy(test[:, :PAST])).numpy()
    by_time = np.mean((forecast - test[:, PAST:]) ** 2, axis=(0, 2, 3))
    print(f"mean squared error of the forecasts {error:.5f}, of persistence {still:.5f}: {error / still:.1%} of it")
    print("by time ahead: " + " ".join(f"{value:.5f}" for value in by_time))


if __name__ == "__main__":
    main()
