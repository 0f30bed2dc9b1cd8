"""Passes a run's log on to Weights & Biases: train.py ... --tracker docs.track_wandb"""

import wandb


def start(config):  # run_config.json, and "workdir"
    folder = config["workdir"]
    wandb.init(project="diffsep", group=folder, dir=folder, config=config)


def log(step, metrics):  # {"train/loss": ..., ...}
    wandb.log(metrics, step=step)


def finish():
    wandb.finish()
