"""The training state on disk: what a killed run goes on from."""

import io
import pathlib
from typing import Any

import torch
from bcos_core.run.checkpoint import write_atomically
from bcos_core.run.error import InputError
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO


class WholeCheckpoints(TorchCheckpointIO):
    """Writes Lightning's checkpoints whole or not at all, and loads nothing that could run code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomically(pathlib.Path(path), buffer.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:
        try:
            # on the CPU: the run may have been killed on a machine with a GPU
            return torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except Exception as error:
            raise InputError(f"{path}: no readable training state ({str(error).splitlines()[0]})") from error
